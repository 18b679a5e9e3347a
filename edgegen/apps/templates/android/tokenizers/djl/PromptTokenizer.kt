package {{package}}

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer
import edgegen.InferenceException
import edgegen.Tokenizer
import java.io.File
import java.io.IOException

/** Hugging Face's tokenizers in Rust, the library that networks are trained with, by way of DJL. */
class PromptTokenizer(file: File) : Tokenizer {
    private val tokenizer = library("read ${file.name}") {
        System.setProperty("OPT_OUT_TRACKING", "true") // DJL reports its use from some machines
        System.setProperty("DJL_CACHE_DIR", checkNotNull(file.parent)) // it writes nowhere else
        HuggingFaceTokenizer.newInstance(file.toPath(), mapOf("truncation" to "false", "padding" to "false"))
    }

    override fun encode(prompt: String): LongArray = library("split the prompt") { tokenizer.encode(prompt).ids }

    /** DJL throws RuntimeException and its subclasses, and an Error where its library is missing. */
    private fun <T> library(what: String, call: () -> T): T = try {
        call()
    } catch (e: RuntimeException) {
        throw InferenceException("the tokenizer cannot $what: ${e.message}", e)
    } catch (e: IOException) {
        throw InferenceException("the tokenizer cannot $what: ${e.message}", e)
    } catch (e: LinkageError) {
        throw InferenceException("the tokenizer's library does not fit this device: ${e.message}", e)
    }
}
