package edgegen

/** From a prompt to the numbers of its parts, beginning and end included, as many as there are. */
fun interface Tokenizer {
    /** @throws GeneratorException where the library cannot be used */
    fun encode(prompt: String): LongArray
}

/**
 * From a prompt to the hidden states that a [Generator] takes: tokenizer and text encoder. One is used by one thread at a
 * time; [Generator] sees to that.
 *
 * @throws ManifestException where the bundle has no text encoder for the artifact
 */
class TextInput(
    spec: TextSpec,
    artifact: Artifact,
    private val tokenizer: Tokenizer,
    private val runtime: Runtime,
) : AutoCloseable {
    private val spec = spec.tokenizer
    private val encoder = spec.encoderOf(artifact)
    private var last: Pair<String, FloatTensor>? = null // many pictures have one prompt

    /** As many numbers as the encoder takes. */
    fun tokens(prompt: String): LongArray {
        val numbers = tokenizer.encode(prompt)
        if (numbers.size > spec.length) return numbers.copyOf(spec.length).also { it[spec.length - 1] = spec.endId }
        return LongArray(spec.length) { at -> if (at < numbers.size) numbers[at] else spec.padId }
    }

    /**
     * The encoder's output for a prompt.
     *
     * @throws InferenceException where the runtime fails
     * @throws OutputException where it gives something else than the manifest says
     */
    fun states(prompt: String): FloatTensor {
        last?.let { (text, states) -> if (text == prompt) return states }
        val numbers = tokens(prompt)
        val shape = listOf(1, spec.length)
        val tensor = when (encoder.tokens.type) {
            Type.INT64 -> LongTensor(shape, numbers)
            else -> IntTensor(shape, IntArray(numbers.size) { numbers[it].toInt() })
        }
        val output = encoder.method.output
        val states = runtime.run(encoder.method, mapOf(encoder.tokens.name to tensor))
        if (states !is FloatTensor || states.shape != output.shape) {
            throw OutputException("${encoder.file}: gave ${states.shape}, and the manifest says ${output.shape}")
        }
        last = prompt to states
        return states
    }

    override fun close() = runtime.close()
}

/**
 * What an app needs beside the artifact: the encoder's files and the tokenizer's.
 *
 * @throws ManifestException where the bundle has no text encoder for the artifact
 */
fun TextSpec.filesOf(artifact: Artifact): List<String> =
    encoderOf(artifact).let { listOf(it.file) + it.beside } + tokenizer.file

/** @throws ManifestException where there is none */
fun TextSpec.encoderOf(artifact: Artifact): EncoderSpec = encoders.find { it.file == artifact.textEncoder }
    ?: throw ManifestException("manifest.json: text.encoders: has no ${artifact.textEncoder}")
