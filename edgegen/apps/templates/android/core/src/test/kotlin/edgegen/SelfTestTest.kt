package edgegen

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** Gives the golden images one after the other, or what [change] makes of them: the model itself is tested on a phone. */
private class GoldenImages(
    private val images: List<Image>,
    private val change: (at: Int, pixels: ByteArray) -> Unit = { _, _ -> },
) : Runtime {
    override val about = "golden images"
    override val threads = 1
    private var calls = 0

    override fun run(method: Method, inputs: Map<String, Tensor>): Tensor {
        val output = method.output
        val image = images[calls]
        val pixels = image.pixels.copyOf().also { change(calls, it) }
        calls += 1
        if (output.type == Type.UINT8) return ByteTensor(output.shape, pixels)
        val plane = image.width * image.height
        val values = FloatArray(pixels.size) { at ->
            val from = if (output.layout == Layout.NCHW) at % plane * image.channels + at / plane else at
            (output.low + (pixels[from].toInt() and 0xFF) * (output.high - output.low) / 255).toFloat()
        }
        return FloatTensor(output.shape, values)
    }

    override fun close() = Unit
}

class SelfTestTest {
    private val bundle = Bundle.open(AppBundle.files)
    private val artifact = AppBundle.artifact
    private val images = bundle.goldenImages(artifact)

    @Test
    fun goldenImagesPass() {
        val result = SelfTest.run(bundle, artifact, Generator(artifact, GoldenImages(images), AppBundle.text()))
        assertTrue(result.passed)
        assertEquals(List(images.size) { Double.POSITIVE_INFINITY }, result.psnrDb)
        assertContains("$result", "self-test passed: ${images.size} pictures of ${artifact.file}, equal to the last bit")
    }

    @Test
    fun oneWrongPictureFails() {
        val runtime = GoldenImages(images) { at, pixels ->
            if (at == 1) pixels.indices.forEach { pixels[it] = (pixels[it].toInt() xor 0x80).toByte() }
        }
        val result = SelfTest.run(bundle, artifact, Generator(artifact, runtime, AppBundle.text()))
        assertFalse(result.passed)
        assertEquals(10 * kotlin.math.log10(255.0 * 255.0 / (128.0 * 128.0)), result.worstDb, 1e-9)
        assertContains("$result", "self-test FAILED, 1 pictures are below")
    }

    @Test
    fun otherTokenNumbersFail() {
        val prompt = bundle.manifest.golden.prompts.getOrNull(1)?.text ?: return // this app takes none
        val other = Tokenizer { text -> AppBundle.tokenizer.encode(text).also { if (text == prompt) it[1] += 1 } }
        val result = SelfTest.run(bundle, artifact, Generator(artifact, GoldenImages(images), AppBundle.text(other)))
        assertFalse(result.passed)
        assertEquals("self-test FAILED: other token numbers for \"$prompt\"", "$result")
    }
}
