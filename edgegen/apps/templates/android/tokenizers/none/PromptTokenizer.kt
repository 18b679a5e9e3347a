package {{package}}

import edgegen.ManifestException
import edgegen.Tokenizer
import java.io.File

/** This app was made from a bundle without prompts, and so without a tokenizer's library. */
class PromptTokenizer(private val file: File) : Tokenizer {
    override fun encode(prompt: String): LongArray = throw ManifestException(
        "${file.name}: this app was made without a tokenizer; make it again from this bundle with `edgegen app android`",
    )
}
