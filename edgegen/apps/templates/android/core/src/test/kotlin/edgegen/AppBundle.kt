package edgegen

import java.io.File
import java.io.FileNotFoundException

/** The bundle of this app, as the tests read it; Gradle says where it lies. */
object AppBundle {
    private val folder = File(checkNotNull(System.getProperty("edgegen.bundle")) { "no -Dedgegen.bundle" })
    val files = BundleFiles { File(folder, it).inputStream() }

    /** The same with other content in some files; null: without the file. */
    fun filesWith(vararg changed: Pair<String, ByteArray?>) = BundleFiles { path ->
        val other = changed.toMap()
        if (path in other) {
            (other[path] ?: throw FileNotFoundException(path)).inputStream()
        } else {
            files.open(path)
        }
    }

    fun text(path: String) = files.open(path).use { it.readBytes().decodeToString() }

    val manifest = Manifest.parse(text(Bundle.MANIFEST))

    /** The artifacts of the bundle that are in the app: the one that it uses. */
    val artifact = manifest.artifacts.first { File(folder, it.file).exists() }

    /** Token numbers as they were recorded, for the golden prompts alone: the library itself is tested on a phone. */
    val tokenizer = Tokenizer { prompt -> manifest.golden.prompts.first { it.text == prompt }.tokens.toLongArray() }

    /** With an encoder whose hidden states are all 0; null where the app takes no prompt. */
    fun text(tokenizer: Tokenizer = this.tokenizer) = manifest.text?.let { TextInput(it, artifact, tokenizer, NoStates) }

    private object NoStates : Runtime {
        override val about = "zeros"
        override val threads = 1

        override fun run(method: Method, inputs: Map<String, Tensor>): Tensor =
            FloatTensor(method.output.shape, FloatArray(method.output.shape.fold(1, Int::times)))

        override fun close() = Unit
    }
}
