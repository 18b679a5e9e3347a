package androidx.benchmark.macro.junit4

import androidx.benchmark.macro.MacrobenchmarkScope
import androidx.benchmark.macro.Metric
import androidx.benchmark.macro.StartupMode

class MacrobenchmarkRule {
    fun measureRepeated(
        packageName: String,
        metrics: List<Metric>,
        iterations: Int,
        startupMode: StartupMode? = null,
        measureBlock: MacrobenchmarkScope.() -> Unit,
    ): Unit = TODO()
}
