package {{package}}

import android.content.Context
import android.os.Build
import android.os.SystemClock
import android.os.Trace
import edgegen.Artifact
import edgegen.Bundle
import edgegen.Generator
import edgegen.Image
import edgegen.LatencyLog
import edgegen.Recipe
import edgegen.Runtimes
import edgegen.SelfTest
import edgegen.TextInput
import edgegen.encoderOf
import java.io.File

/** The bundle of this app with its model loaded. Opening and calling it takes time: never on the main thread. */
class Model private constructor(
    private val context: Context,
    val bundle: Bundle,
    val artifact: Artifact,
    val generator: Generator,
    private val log: LatencyLog,
) : AutoCloseable {
    private var selfTest: SelfTest? = null

    /** One picture and its time in milliseconds, which goes into the latency log. */
    fun generate(seed: Long, label: Int?, image: Image?, prompt: String?): Pair<Image, Double> = traced("edgegen: generate") {
        val (file, loadMs) = timed { generator.prepare(label) }
        log.loaded(file, loadMs)
        val (picture, milliseconds) = timed { generator.generate(seed, label, image, prompt = prompt) }
        log.add(file, milliseconds)
        picture to milliseconds
    }

    /** What [generate] made a picture by. */
    fun recipe(seed: Long, label: Int?, image: Image?, prompt: String?): Recipe {
        val name = generator.imageInput?.name
        val inputs = if (name != null && image != null) mapOf(name to Bundle.sha256(image.pixels)) else emptyMap()
        return Recipe(artifact.fileOf(label).sha256, seed, label, bundle.manifest.edgegen, inputs, prompt)
    }

    /** Makes every golden image again. */
    fun selfTest(): SelfTest = traced("edgegen: self-test") {
        SelfTest.run(bundle, artifact, generator).also { selfTest = it }
    }

    /** Writes the log beside the app's other files, where `adb pull` reaches it. */
    fun writeLog() {
        val target = mapOf(
            "cpu" to if (Build.VERSION.SDK_INT >= 31) Build.SOC_MODEL else Build.HARDWARE,
            "os" to "Android ${Build.VERSION.RELEASE}",
            "model" to "${Build.MANUFACTURER} ${Build.MODEL}",
        )
        val text = log.toJson(target, selfTest) ?: return
        val folder = context.getExternalFilesDir(null) ?: context.filesDir
        File(folder, LOG).writeText(text)
    }

    override fun close() = generator.close()

    companion object {
        const val LOG = "latency.json"
        private const val MOST_THREADS = 4

        /** Reads the bundle, copies the model the first time and loads it; raises [edgegen.GeneratorException]. */
        fun open(context: Context): Model = traced("edgegen: load") {
            val began = SystemClock.elapsedRealtimeNanos()
            val files = ModelFiles(context)
            val bundle = files.bundle()
            val artifact = bundle.manifest.artifact(ModelFiles.ARTIFACT)
            val threads = Runtime.getRuntime().availableProcessors().coerceAtMost(MOST_THREADS)
            val folder = files.model(bundle, artifact)
            val runtimes = Runtimes { ModelRuntime(File(folder, it.name), threads) }
            val about = runtimes.of(artifact.files.first()).about
            val text = bundle.manifest.text?.let { spec ->
                val encoder = ModelRuntime(File(folder, spec.encoderOf(artifact).file), threads)
                TextInput(spec, artifact, PromptTokenizer(File(folder, spec.tokenizer.file)), encoder)
            }
            val log = LatencyLog(artifact, bundle.manifest.edgegen, about, threads)
            log.loaded(artifact.files.first(), (SystemClock.elapsedRealtimeNanos() - began) / 1e6)
            Model(context.applicationContext, bundle, artifact, Generator(artifact, runtimes, text), log)
        }

        private fun <T> timed(call: () -> T): Pair<T, Double> {
            val began = SystemClock.elapsedRealtimeNanos()
            return call() to (SystemClock.elapsedRealtimeNanos() - began) / 1e6
        }

        private fun <T> traced(section: String, call: () -> T): T {
            Trace.beginSection(section)
            try {
                return call()
            } finally {
                Trace.endSection()
            }
        }
    }
}
