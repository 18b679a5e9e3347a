package edgegen

/**
 * Makes pictures with one artifact of a bundle. Calls from several threads wait for each other; none belongs on the
 * main thread.
 *
 * @param runtimes opens the artifact's file, or that of the student that makes a class
 * @param text makes hidden states of prompts, where the artifact takes such
 * @throws ManifestException where the artifact takes something that this app does not give
 */
class Generator(
    private val artifact: Artifact,
    private val runtimes: Runtimes,
    private val text: TextInput? = null,
) : AutoCloseable {
    /** With one file, which is open. */
    constructor(artifact: Artifact, runtime: Runtime, text: TextInput? = null) : this(artifact, Runtimes { runtime }, text)

    init {
        for (input in artifact.inputs) check(input)
        val output = artifact.method.output
        if (output.layout == Layout.OTHER || output.shape.size != 4 || output.type !in setOf(Type.FLOAT32, Type.UINT8)) {
            throw ManifestException("${artifact.file}: its output ${output.name} of ${output.type} is no picture of this app")
        }
    }

    /** Number of classes; 0 where there are none and [generate] takes no label. */
    val classes: Int get() = artifact.classes

    /** The input that is a picture, null where there is none and [generate] takes no image. */
    val imageInput: Input? get() = artifact.input(Role.IMAGE)

    /** Whether [generate] needs a prompt. */
    val takesPrompt: Boolean get() = artifact.input(Role.TEXT) != null

    /**
     * One picture. The same arguments give the same picture on every device.
     *
     * @param seed 0 or more; it changes nothing where no input is noise
     * @param label class number from 0, where the model has classes
     * @param image of the size of [imageInput], where the model takes a picture
     * @param index of the sample of this seed
     * @param prompt any text, where the model takes one; what is too long is cut
     * @throws InputException for a label, an image, a prompt or a seed that the model does not take
     * @throws InferenceException where the runtime fails
     * @throws OutputException where it gives something else than the manifest says
     */
    fun generate(seed: Long, label: Int? = null, image: Image? = null, index: Long = 0, prompt: String? = null): Image {
        if (seed < 0 || index < 0) throw InputException("seed $seed, index $index: both must be 0 or more")
        if (label != null && classes == 0) throw InputException("label $label: this model has no classes")
        if (image != null && imageInput == null) throw InputException("this model takes no picture")
        if (prompt != null && !takesPrompt) throw InputException("this model takes no prompt")
        val method = artifact.method
        val tensor = synchronized(runtimes) {
            val inputs = artifact.inputs.associate { it.name to tensor(it, seed, index, label, image, prompt) }
            runtimes.of(artifact.fileOf(label)).run(method, inputs)
        }
        return Image.of(tensor, method.output)
    }

    /**
     * Opens what makes a class, so that the next picture does not wait for it; nothing where it is open.
     *
     * @throws ManifestException where nothing makes this class
     * @throws InferenceException where the runtime refuses the file
     */
    fun prepare(label: Int?): ModelFile = artifact.fileOf(label).also { synchronized(runtimes) { runtimes.of(it) } }

    /** The token numbers of a prompt, as the text encoder gets them. */
    fun tokens(prompt: String): LongArray = synchronized(runtimes) { textInput().tokens(prompt) }

    override fun close() = synchronized(runtimes) {
        runtimes.close()
        text?.close() ?: Unit
    }

    private fun textInput() = text ?: throw InputException("this model was opened without its text encoder")

    private fun check(input: Input) {
        val fits = when (input.role) {
            Role.NOISE -> input.type == Type.FLOAT32
            Role.CLASS -> input.size == 1 && input.high != null && input.type in setOf(Type.INT64, Type.INT32)
            Role.IMAGE -> input.type == Type.FLOAT32 && input.shape.size == 4 && input.low != null && input.high != null
            Role.TEXT -> input.type == Type.FLOAT32 && text != null
            Role.OTHER -> false
        }
        if (!fits || input.shape.firstOrNull() != 1) {
            throw ManifestException(
                "${artifact.file}: its input ${input.name} of ${input.type}, ${input.shape} is none that this app fills: " +
                    "noise, a class number, a picture or a prompt, one sample at a time",
            )
        }
    }

    private fun tensor(
        input: Input, seed: Long, index: Long, label: Int?, image: Image?, prompt: String?,
    ): Tensor = when (input.role) {
        Role.TEXT -> textInput().states(prompt ?: throw InputException("this model needs a prompt"))
        Role.NOISE -> FloatTensor(input.shape, Noise.normal(offset(seed, input), index, 1, input.size))
        Role.CLASS -> classTensor(input, label)
        else -> imageTensor(input, image ?: throw InputException("this model needs a picture of ${size(input)}"))
    }

    private fun offset(seed: Long, input: Input): ULong = seed.toULong() + input.seedOffset.toULong()

    private fun classTensor(input: Input, label: Int?): Tensor {
        if (label == null || label !in 0 until classes) {
            throw InputException("label ${label ?: "is missing"}: this model has the classes 0 to ${classes - 1}")
        }
        return when (input.type) {
            Type.INT64 -> LongTensor(input.shape, longArrayOf(label.toLong()))
            else -> IntTensor(input.shape, intArrayOf(label))
        }
    }

    /** x = low + pixel (high - low) / 255, channel by channel. */
    private fun imageTensor(input: Input, image: Image): Tensor {
        val (_, channels, height, width) = input.shape
        if (image.channels != channels || image.height != height || image.width != width) {
            throw InputException(
                "the picture has ${image.width} x ${image.height} pixels of ${image.channels} channels; " +
                    "this model needs ${size(input)}",
            )
        }
        val low = checkNotNull(input.low)
        val step = ((checkNotNull(input.high) - low) / 255).toFloat()
        val plane = height * width
        return FloatTensor(
            input.shape,
            FloatArray(channels * plane) { at ->
                val pixel = image.pixels[at % plane * channels + at / plane].toInt() and 0xFF
                pixel * step + low.toFloat()
            },
        )
    }

    private fun size(input: Input) = "${input.shape[3]} x ${input.shape[2]} pixels of ${input.shape[1]} channels"
}
