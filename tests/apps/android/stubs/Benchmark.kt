package androidx.benchmark.macro

@RequiresOptIn
annotation class ExperimentalMetricApi

sealed class Metric

class StartupTimingMetric : Metric()

@ExperimentalMetricApi
class TraceSectionMetric(sectionName: String) : Metric()

enum class StartupMode { COLD }

class MacrobenchmarkScope {
    fun pressHome(): Unit = TODO()

    fun startActivityAndWait(): Unit = TODO()
}
