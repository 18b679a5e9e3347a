package ai.djl.huggingface.tokenizers

import java.nio.file.Path

class HuggingFaceTokenizer private constructor() : AutoCloseable {
    fun encode(text: String): Encoding = TODO()

    override fun close(): Unit = TODO()

    companion object {
        fun newInstance(modelPath: Path, options: Map<String, String>): HuggingFaceTokenizer = TODO()
    }
}

class Encoding {
    val ids: LongArray = TODO()
}
