package edgegen

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Answers as a real runtime answered the same inputs, bit by bit; other inputs were never recorded. */
private class Recorded(private val folder: File) : Runtime {
    override val about = "recorded"
    override val threads = 1
    private val calls = JSONObject(File(folder, "session.json").readText()).getJSONArray("calls")

    override fun run(method: Method, inputs: Map<String, Tensor>): Tensor {
        for (at in 0 until calls.length()) {
            val call = calls.getJSONObject(at)
            val recorded = call.getJSONObject("inputs")
            assertEquals(recorded.keys().asSequence().toSet(), inputs.keys)
            if (inputs.all { (name, tensor) -> bytes(tensor).contentEquals(File(folder, recorded.getString(name)).readBytes()) }) {
                return output(File(folder, call.getString("output")).readBytes(), method.output)
            }
        }
        throw InferenceException("these inputs were never recorded")
    }

    override fun close() = Unit

    private fun bytes(tensor: Tensor): ByteArray {
        val buffer = ByteBuffer.allocate(8 * tensor.shape.fold(1, Int::times)).order(ByteOrder.LITTLE_ENDIAN)
        when (tensor) {
            is FloatTensor -> tensor.values.forEach(buffer::putFloat)
            is LongTensor -> tensor.values.forEach(buffer::putLong)
            is IntTensor -> tensor.values.forEach(buffer::putInt)
            is ByteTensor -> buffer.put(tensor.values)
        }
        return buffer.array().copyOf(buffer.position())
    }

    private fun output(content: ByteArray, output: Output): Tensor {
        if (output.type == Type.UINT8) return ByteTensor(output.shape, content)
        val floats = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatTensor(output.shape, FloatArray(floats.remaining()).also { floats.get(it) })
    }
}

class ReplayTest {
    private val session = File(checkNotNull(System.getProperty("edgegen.session")) { "no -Dedgegen.session" })
    private val bundle = Bundle.open(AppBundle.files)
    private val artifact = AppBundle.artifact
    private val text = bundle.manifest.text?.let {
        TextInput(it, artifact, AppBundle.tokenizer, Recorded(File(session, "encoder")))
    }
    private val runtimes = Runtimes { Recorded(if (artifact.students.isEmpty()) session else File(session, it.name)) }
    private val generator = Generator(artifact, runtimes, text)

    @Test
    fun theGoldenImagesAreMadeFromTheirSeeds() {
        val log = LatencyLog(artifact, bundle.manifest.edgegen, "recorded", 1)
        log.loaded(artifact.files.first(), 1.0)
        val result = SelfTest.run(bundle, artifact, generator)
        assertTrue(result.passed, "$result")
        val given = artifact.input(Role.IMAGE)?.let { bundle.goldenInputs(it) }
        bundle.manifest.golden.samples.forEachIndexed { at, sample ->
            val began = System.nanoTime()
            val input = given?.get(at)
            val prompt = sample.prompt?.let { bundle.manifest.golden.prompts[it].text }
            val image = generator.generate(sample.seed, sample.label, input, sample.index, prompt)
            log.add(artifact.fileOf(sample.label), (System.nanoTime() - began) / 1e6)
            val inputs = input?.let { mapOf("photo" to Bundle.sha256(it.pixels)) }.orEmpty()
            val recipe = Recipe(artifact.fileOf(sample.label).sha256, sample.seed, sample.label, bundle.manifest.edgegen, inputs, prompt)
            File(session, "$at.png").writeBytes(Png.encode(image, recipe))
        }
        val json = checkNotNull(log.toJson(mapOf("cpu" to "a processor", "os" to "JVM"), result))
        File(session, "latency.json").writeText(json)
    }

    @Test
    fun otherInputsAreNoneOfTheRecording() {
        if (artifact.input(Role.NOISE) == null) return
        val label = if (generator.classes > 0) 0 else null
        assertFailsWith<InferenceException> { generator.generate(987654321, label, prompt = bundle.manifest.golden.prompts.firstOrNull()?.text) }
    }
}
