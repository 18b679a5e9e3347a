package {{package}}

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith

/** The golden images on a phone or an emulator: `./gradlew :app:connectedDebugAndroidTest`. */
@RunWith(AndroidJUnit4::class)
class SelfTestOnDevice {
    @Test
    fun everyGoldenImageIsMadeAgain() {
        Model.open(InstrumentationRegistry.getInstrumentation().targetContext).use { model ->
            val result = model.selfTest()
            assertTrue(result.toString(), result.passed)
        }
    }
}
