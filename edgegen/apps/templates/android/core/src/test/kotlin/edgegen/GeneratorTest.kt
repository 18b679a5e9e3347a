package edgegen

import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs

/** Gives the same output always, and remembers what it was given. */
private class Fixed(private val output: Tensor) : Runtime {
    override val about = "fixed"
    override val threads = 1
    var inputs: Map<String, Tensor> = emptyMap()

    override fun run(method: Method, inputs: Map<String, Tensor>): Tensor = output.also { this.inputs = inputs }

    override fun close() = Unit
}

class GeneratorTest {
    private val noise = Input("sample", Role.NOISE, Type.FLOAT32, listOf(1, 3, 2, 2), null, null, 5)
    private val label = Input("class_labels", Role.CLASS, Type.INT64, listOf(1), 0.0, 9.0, 0)
    private val photo = Input("photo", Role.IMAGE, Type.FLOAT32, listOf(1, 3, 2, 4), -1.0, 1.0, 0)
    private val floats = Output("out", Type.FLOAT32, listOf(1, 3, 1, 2), Layout.NCHW, -1.0, 1.0)
    private val bytes = Output("image", Type.UINT8, listOf(1, 1, 2, 3), Layout.NHWC, 0.0, 255.0)

    private fun artifact(inputs: List<Input>, vararg outputs: Output) = Artifact(
        "net.onnx", "onnx", "fp32", 1, "0".repeat(64), emptyList(), inputs, outputs.map { Method(null, it) }, "golden/x", 40.0,
    )

    @Test
    fun noiseAndClassAreFilled() {
        val runtime = Fixed(FloatTensor(floats.shape, FloatArray(6)))
        Generator(artifact(listOf(noise, label), floats), runtime).generate(seed = 3, label = 7, index = 2)
        val sample = assertIs<FloatTensor>(runtime.inputs["sample"])
        assertContentEquals(Noise.normal(8uL, 2, 1, 12), sample.values)
        assertContentEquals(longArrayOf(7), assertIs<LongTensor>(runtime.inputs["class_labels"]).values)
        val narrow = Generator(artifact(listOf(noise, label.copy(type = Type.INT32)), floats), runtime)
        narrow.generate(seed = 3, label = 9)
        assertContentEquals(intArrayOf(9), assertIs<IntTensor>(runtime.inputs["class_labels"]).values)
        assertEquals(10, narrow.classes)
    }

    @Test
    fun aPictureBecomesPlanesInTheRangeOfTheInput() {
        val runtime = Fixed(FloatTensor(floats.shape, FloatArray(6)))
        val pixels = ByteArray(24) { (it * 10).toByte() }
        Generator(artifact(listOf(photo), floats), runtime).generate(0, image = Image(4, 2, 3, pixels))
        val planes = assertIs<FloatTensor>(runtime.inputs["photo"]).values
        for (channel in 0..2) for (pixel in 0..7) {
            assertEquals(2 * (pixel * 3 + channel) * 10 / 255f - 1, planes[channel * 8 + pixel], 1e-6f)
        }
    }

    @Test
    fun floatsAreRoundedToEvenAndCut() {
        val shape = listOf(1, 1, 1, 6)
        val output = Output("out", Type.FLOAT32, shape, Layout.NCHW, 0.0, 255.0)
        val values = floatArrayOf(-3f, 0.5f, 1.5f, 127.49f, 254.6f, 300f)
        val image = Generator(artifact(listOf(noise), output), Fixed(FloatTensor(shape, values))).generate(0)
        assertContentEquals(byteArrayOf(0, 0, 2, 127, -1, -1), image.pixels)
        val planes = Fixed(FloatTensor(floats.shape, floatArrayOf(-1f, 1f, 0f, 1f, 1f, -1f)))
        val colors = Generator(artifact(listOf(noise), floats), planes).generate(0)
        assertContentEquals(byteArrayOf(0, -128, -1, -1, -1, 0), colors.pixels)
        assertContentEquals(intArrayOf(0xFF0080FF.toInt(), 0xFFFFFF00.toInt()), colors.toArgb())
    }

    @Test
    fun theMethodThatGivesBytesIsCalled() {
        val runtime = Fixed(ByteTensor(bytes.shape, byteArrayOf(1, 2, 3, 4, 5, -1)))
        val image = Generator(artifact(listOf(noise), floats, bytes), runtime).generate(0)
        assertContentEquals(byteArrayOf(1, 2, 3, 4, 5, -1), image.pixels)
        assertEquals(listOf(2, 1, 3), listOf(image.width, image.height, image.channels))
    }

    @Test
    fun wrongCallsAreRefused() {
        val runtime = Fixed(FloatTensor(floats.shape, FloatArray(6)))
        val classes = Generator(artifact(listOf(noise, label), floats), runtime)
        val pictures = Generator(artifact(listOf(photo), floats), runtime)
        val refused = listOf<Pair<() -> Image, String>>(
            { classes.generate(0) } to "label is missing: this model has the classes 0 to 9",
            { classes.generate(0, label = 10) } to "label 10: this model has the classes 0 to 9",
            { classes.generate(0, label = -1) } to "label -1",
            { classes.generate(-1, label = 1) } to "seed -1, index 0: both must be 0 or more",
            { classes.generate(0, label = 1, image = Image(1, 1, 1, ByteArray(1))) } to "takes no picture",
            { pictures.generate(0, label = 1) } to "has no classes",
            { classes.generate(0, label = 1, prompt = "a cat") } to "takes no prompt",
            { pictures.generate(0) } to "needs a picture of 4 x 2 pixels of 3 channels",
            { pictures.generate(0, image = Image(2, 4, 3, ByteArray(24))) } to "has 2 x 4 pixels of 3 channels",
            { pictures.generate(0, image = Image(4, 2, 1, ByteArray(8))) } to "has 4 x 2 pixels of 1 channels",
        )
        for ((call, message) in refused) {
            assertContains(assertFailsWith<InputException> { call() }.message.orEmpty(), message)
        }
        assertEquals(emptyMap(), runtime.inputs)
    }

    @Test
    fun outputsThatAreNotAsTheManifestSaysAreRefused() {
        val wrong = listOf(
            FloatTensor(listOf(1, 3, 2, 1), FloatArray(6)),
            FloatTensor(floats.shape, FloatArray(6) { Float.NaN }),
            FloatTensor(floats.shape, FloatArray(6) { Float.POSITIVE_INFINITY }),
            ByteTensor(floats.shape, ByteArray(6)),
        )
        for (output in wrong) {
            val generator = Generator(artifact(listOf(noise), floats), Fixed(output))
            assertFailsWith<OutputException> { generator.generate(0) }
        }
    }

    @Test
    fun inputsThatNothingFillsAreRefusedBeforeTheFirstPicture() {
        val strange = listOf(
            noise.copy(role = Role.OTHER),
            noise.copy(type = Type.FLOAT16),
            noise.copy(shape = listOf(4, 3, 2, 2)),
            label.copy(high = null),
            photo.copy(low = null),
        )
        for (input in strange) {
            val artifact = artifact(listOf(input), floats)
            val error = assertFailsWith<ManifestException> { Generator(artifact, Fixed(FloatTensor(listOf(1), FloatArray(1)))) }
            assertContains(error.message.orEmpty(), "net.onnx: its input ${input.name}")
        }
        for (output in listOf(floats.copy(layout = Layout.OTHER), floats.copy(type = Type.FLOAT16), floats.copy(shape = listOf(1, 3)))) {
            val runtime = Fixed(FloatTensor(listOf(1), FloatArray(1)))
            val error = assertFailsWith<ManifestException> { Generator(artifact(listOf(noise), output), runtime) }
            assertContains(error.message.orEmpty(), "net.onnx: its output out")
        }
    }
}
