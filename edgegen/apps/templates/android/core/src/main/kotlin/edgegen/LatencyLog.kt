package edgegen

import org.json.JSONArray
import org.json.JSONObject
import java.time.Instant
import java.time.temporal.ChronoUnit

/**
 * The latencies of one start of an app in edgegen's schema "edgegen.profile/1"; `edgegen report FILE` reads it.
 *
 * They are marked as noisy: an app in use shares its device, and nothing was repeated until a median settled.
 *
 * @param threads that the runtime was told to use
 */
class LatencyLog(
    private val artifact: Artifact,
    private val edgegen: String,
    private val runtime: String,
    private val threads: Int,
) {
    private class Times(val file: ModelFile, val loadMs: Double?) {
        var firstMs: Double? = null // it is not among the others
        val runsMs = ArrayDeque<Double>()
    }

    private val times = LinkedHashMap<String, Times>() // several students have one each

    /** Notes how long it took until a file of the artifact could be run; the first time counts. */
    @Synchronized
    fun loaded(file: ModelFile, milliseconds: Double?) {
        if (file.name !in times) times[file.name] = Times(file, milliseconds)
    }

    /** Adds the time of one picture that a file made. */
    @Synchronized
    fun add(file: ModelFile, milliseconds: Double) {
        require(milliseconds > 0) { "a picture in $milliseconds ms" }
        loaded(file, null)
        val own = times.getValue(file.name)
        if (own.firstMs == null) {
            own.firstMs = milliseconds
        } else {
            own.runsMs.addLast(milliseconds)
            if (own.runsMs.size > LONGEST) own.runsMs.removeFirst()
        }
    }

    /**
     * The file, null until the second picture.
     *
     * @param target what is known of the device: "cpu", "os", "model"; null for what is not
     * @param selfTest of this artifact on this device, where it ran; a failed one has no latency
     */
    @Synchronized
    fun toJson(target: Map<String, String?>, selfTest: SelfTest?, now: Instant = Instant.now()): String? {
        val measured = times.values.filter { it.runsMs.isNotEmpty() }
        if (measured.isEmpty()) return null
        return JSONObject()
            .put("schema", "edgegen.profile/1")
            .put("created", now.truncatedTo(ChronoUnit.SECONDS).toString())
            .put("tool", "edgegen $edgegen, latency log of an app")
            .put("device", "android")
            .put("target", JSONObject(target.mapValues { it.value ?: JSONObject.NULL }))
            .put("profile", "quick")
            .put("others_cores", JSONObject.NULL)
            .put("stolen_cores", JSONObject.NULL)
            .put("results", JSONArray(measured.map { result(it, selfTest) }))
            .toString(2)
    }

    private fun result(own: Times, selfTest: SelfTest?): JSONObject {
        val failed = selfTest != null && !selfTest.passed
        val reason = if (failed) selfTest.toString() else "an app in use, not edgegen's protocol of measuring"
        val cold = own.loadMs?.let { listOf(JSONObject().put("load_ms", it).put("first_ms", own.firstMs)) }
        return JSONObject()
            .put("artifact", facts(own.file))
            .put(
                "config",
                JSONObject()
                    .put("runtime", runtime)
                    .put("threads_requested", threads)
                    .put("threads_actual", JSONObject.NULL),
            )
            .put("numerics", numerics(selfTest))
            .put("cold", JSONArray(cold.orEmpty()))
            .put("latency", if (failed) JSONObject.NULL else latency(own.runsMs))
            .put(
                "verdict",
                JSONObject()
                    .put("status", if (failed) "failed" else "noisy")
                    .put("reasons", JSONArray(listOf(reason))),
            )
    }

    private fun facts(file: ModelFile): JSONObject {
        val inputs = artifact.inputs.map {
            JSONObject().put("name", it.name).put("dtype", it.type.name.lowercase()).put("shape", JSONArray(it.shape))
        }
        return JSONObject()
            .put("name", file.name)
            .put("format", file.name.substringAfterLast('.'))
            .put("sha256", file.sha256)
            .put("nbytes", file.bytes)
            .put("scheme", artifact.scheme)
            .put("inputs", JSONArray(inputs))
    }

    private fun numerics(selfTest: SelfTest?) = JSONObject()
        .put("reference", if (selfTest == null) JSONObject.NULL else "golden images of the bundle")
        .put("snr_db", JSONObject.NULL)
        .put("max_abs", JSONObject.NULL)
        .put("passed", selfTest?.passed ?: JSONObject.NULL)
        .put("reason", selfTest?.toString() ?: "the self-test did not run")

    /** All runs are one block, of which the bootstrap over blocks gives the median itself as both ends. */
    private fun latency(runsMs: List<Double>): JSONObject {
        val sorted = runsMs.sorted()
        val median = quantile(sorted, 0.5)
        return JSONObject()
            .put("blocks_ms", JSONArray(listOf(JSONArray(runsMs))))
            .put("runs", sorted.size)
            .put("p50_ms", median)
            .put("p50_ci95_ms", JSONArray(listOf(median, median)))
            .put("p90_ms", quantile(sorted, 0.9))
            .put("min_ms", sorted.first())
            .put("mean_ms", sorted.average())
            .put("converged", false)
    }

    private companion object {
        /** Pictures that are remembered: the newest. */
        const val LONGEST = 1000

        /** Linear between the two nearest ranks, as numpy does. */
        fun quantile(sorted: List<Double>, share: Double): Double {
            val position = share * (sorted.size - 1)
            val below = position.toInt()
            val above = minOf(below + 1, sorted.size - 1)
            return sorted[below] + (position - below) * (sorted[above] - sorted[below])
        }
    }
}
