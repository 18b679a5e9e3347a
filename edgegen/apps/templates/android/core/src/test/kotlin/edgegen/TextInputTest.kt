package edgegen

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertSame

class TextInputTest {
    private val output = Output("states", Type.FLOAT32, listOf(1, 4, 2), Layout.OTHER, 0.0, 1.0)
    private val noise = Input("sample", Role.NOISE, Type.FLOAT32, listOf(1, 1, 1, 1), null, null, 0)
    private val states = Input("encoder_hidden_states", Role.TEXT, Type.FLOAT32, listOf(1, 4, 2), null, null, 0)
    private val pixels = Output("image", Type.UINT8, listOf(1, 1, 1, 1), Layout.NHWC, 0.0, 255.0)
    private val artifact = Artifact(
        "net.onnx", "onnx", "fp32", 1, "0".repeat(64), emptyList(), listOf(noise, states), listOf(Method(null, pixels)),
        "golden/x", 40.0, "encoder.onnx",
    )
    private val letters = Tokenizer { prompt -> longArrayOf(8) + prompt.map { it.code.toLong() } + 9L }

    private class Counted(private val output: Tensor) : Runtime {
        override val about = "counted"
        override val threads = 1
        val calls = mutableListOf<Map<String, Tensor>>()

        override fun run(method: Method, inputs: Map<String, Tensor>): Tensor = output.also { calls += inputs }

        override fun close() = Unit
    }

    private fun spec(type: Type = Type.INT64) = TextSpec(
        TokenizerSpec("tokenizer.json", 4, 9, 7),
        listOf(
            EncoderSpec(
                "encoder.onnx", "0".repeat(64), emptyList(),
                Input("input_ids", Role.OTHER, type, listOf(1, 4), null, null, 0), Method(null, output),
            ),
        ),
    )

    @Test
    fun tooManyNumbersLoseTheirEndAndTooFewGetPadding() {
        val text = TextInput(spec(), artifact, letters, Counted(FloatTensor(output.shape, FloatArray(8))))
        assertContentEquals(longArrayOf(8, 9, 7, 7), text.tokens(""))
        assertContentEquals(longArrayOf(8, 97, 98, 9), text.tokens("ab"))
        assertContentEquals(longArrayOf(8, 97, 98, 9), text.tokens("abc"))
        assertContentEquals(longArrayOf(8, 97, 98, 9), text.tokens("abcdef"))
    }

    @Test
    fun aPromptIsEncodedOnceAndReachesTheModel() {
        val encoder = Counted(FloatTensor(output.shape, FloatArray(8) { it.toFloat() }))
        val model = Counted(ByteTensor(pixels.shape, byteArrayOf(1)))
        val generator = Generator(artifact, model, TextInput(spec(), artifact, letters, encoder))
        repeat(2) { generator.generate(it.toLong(), prompt = "a") }
        assertEquals(1, encoder.calls.size)
        assertContentEquals(longArrayOf(8, 97, 9, 7), assertIs<LongTensor>(encoder.calls[0]["input_ids"]).values)
        generator.generate(0, prompt = "b")
        assertEquals(2, encoder.calls.size)
        assertSame(model.calls[0]["encoder_hidden_states"], model.calls[1]["encoder_hidden_states"])
        assertEquals(listOf("sample", "encoder_hidden_states"), model.calls[0].keys.toList())
        val narrow = TextInput(spec(Type.INT32), artifact, letters, encoder)
        narrow.states("a")
        assertContentEquals(intArrayOf(8, 97, 9, 7), assertIs<IntTensor>(encoder.calls[2]["input_ids"]).values)
    }

    @Test
    fun whatDoesNotFitIsRefused() {
        val wrong = Counted(FloatTensor(listOf(1, 8), FloatArray(8)))
        val model = Counted(ByteTensor(pixels.shape, byteArrayOf(1)))
        val generator = Generator(artifact, model, TextInput(spec(), artifact, letters, wrong))
        assertContains(assertFailsWith<InputException> { generator.generate(0) }.message.orEmpty(), "needs a prompt")
        assertContains(assertFailsWith<OutputException> { generator.generate(0, prompt = "a") }.message.orEmpty(), "encoder.onnx: gave")
        assertContains(
            assertFailsWith<ManifestException> { Generator(artifact, model) }.message.orEmpty(), "its input encoder_hidden_states",
        )
        val other = artifact.copy(textEncoder = "other.onnx")
        assertContains(
            assertFailsWith<ManifestException> { TextInput(spec(), other, letters, wrong) }.message.orEmpty(), "has no other.onnx",
        )
    }
}
