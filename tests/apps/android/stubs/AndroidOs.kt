package android.os

class Bundle

class Build {
    class VERSION {
        companion object {
            val SDK_INT: Int = TODO()
            val RELEASE: String = TODO()
        }
    }

    companion object {
        val HARDWARE: String = TODO()
        val MANUFACTURER: String = TODO()
        val MODEL: String = TODO()
        val SOC_MODEL: String = TODO()
    }
}

object SystemClock {
    fun elapsedRealtimeNanos(): Long = TODO()
}

object Trace {
    fun beginSection(sectionName: String): Unit = TODO()

    fun endSection(): Unit = TODO()
}
