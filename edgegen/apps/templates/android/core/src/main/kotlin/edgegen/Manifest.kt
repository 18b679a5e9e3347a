package edgegen

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

/** What fills an input: see [Generator]. */
enum class Role { NOISE, CLASS, IMAGE, TEXT, OTHER }

/** Of the numbers of a tensor. */
enum class Type { FLOAT32, FLOAT16, INT64, INT32, UINT8 }

/** Order of the axes of an output; OTHER is none that this app shows. */
enum class Layout { NCHW, NHWC, OTHER }

/** The parts of `manifest.json`, schema "edgegen.bundle/1", that a picture needs; keys beyond them are not read. */
data class Manifest(
    val name: String,
    val license: String,
    val classNames: List<String>,
    val artifacts: List<Artifact>,
    val golden: Golden,
    /** The version of edgegen that wrote the bundle. */
    val edgegen: String,
    /** SHA-256 of every file of the bundle. */
    val hashes: Map<String, String>,
    /** How a prompt becomes the input with the role text; null where no model takes one. */
    val text: TextSpec? = null,
) {
    /** @throws ManifestException where there is no such file */
    fun artifact(file: String): Artifact = artifacts.find { it.file == file }
        ?: throw ManifestException("no artifact $file; the manifest has ${artifacts.joinToString { it.file }}")

    companion object {
        const val SCHEMA = "edgegen.bundle/1"

        /** @throws ManifestException that names the key that is missing or wrong */
        fun parse(text: String): Manifest {
            val values = try {
                JSONObject(text)
            } catch (e: JSONException) {
                throw ManifestException("manifest.json is no JSON: ${e.message}", e)
            }
            return Reader(values, "").manifest()
        }
    }
}

/** One exported file. Its shapes start with 1, the one sample that an app makes at a time. */
data class Artifact(
    val file: String,
    val runtime: String,
    val scheme: String,
    val bytes: Long,
    val sha256: String,
    val beside: List<String>,
    val inputs: List<Input>,
    val methods: List<Method>,
    val goldenFile: String,
    val floorDb: Double,
    /** File of [TextSpec.encoders], null where no input is text. */
    val textEncoder: String? = null,
    /** Empty where one file makes the pictures of all classes; [file] is that of the first, [bytes] are those of all. */
    val students: List<Student> = emptyList(),
) {
    /** What a runtime opens for this artifact. */
    val files: List<ModelFile> get() = students.map { it.file }.ifEmpty { listOf(ModelFile(file, bytes, sha256, beside)) }

    /**
     * What makes the pictures of a class.
     *
     * @throws ManifestException where no student does
     */
    fun fileOf(label: Int?): ModelFile {
        if (students.isEmpty()) return files.single()
        return students.find { label in it.classes }?.file
            ?: throw ManifestException("manifest.json: no student of $file makes the class $label")
    }

    /** The method that gives bytes, where there is one: an app shows them as they are. */
    val method: Method get() = methods.find { it.output.type == Type.UINT8 } ?: methods.first()

    fun input(role: Role): Input? = inputs.find { it.role == role }

    /** Number of classes; 0 where no input is a class. */
    val classes: Int get() = input(Role.CLASS)?.high?.let { it.toInt() + 1 } ?: 0
}

/** One file of an artifact; [bytes] are those of the files [beside] it, too. */
data class ModelFile(val name: String, val bytes: Long, val sha256: String, val beside: List<String>)

/** One of several files of an artifact, which makes the pictures of some classes. */
data class Student(val file: ModelFile, val classes: List<Int>)

/** One input; [low] and [high] are its least and greatest value, null where unbounded. */
data class Input(
    val name: String,
    val role: Role,
    val type: Type,
    val shape: List<Int>,
    val low: Double?,
    val high: Double?,
    /** Its noise is that of seed + seedOffset. */
    val seedOffset: Long,
) {
    val size: Int get() = shape.drop(1).fold(1, Int::times)
}

/** What can be called in a file; [name] is null where the file does one thing. */
data class Method(val name: String?, val output: Output)

/** Of floats, [low] is black and [high] is white. */
data class Output(
    val name: String,
    val type: Type,
    val shape: List<Int>,
    val layout: Layout,
    val low: Double,
    val high: Double,
)

/** What the model must give on every device, and from what. */
data class Golden(
    val samples: List<Sample>,
    val inputs: List<GivenInput>,
    val shape: List<Int>,
    val prompts: List<Prompt> = emptyList(),
)

/** [prompt] is a position in [Golden.prompts]. */
data class Sample(val seed: Long, val index: Long, val label: Int?, val prompt: Int? = null)

/** A prompt and the token numbers that every device must make of it. */
data class Prompt(val text: String, val tokens: List<Long>)

/** Tokenizer and text encoders of a bundle. */
data class TextSpec(val tokenizer: TokenizerSpec, val encoders: List<EncoderSpec>)

/** Of more than [length] numbers the first are kept and [endId] is the last; fewer are followed by [padId]. */
data class TokenizerSpec(val file: String, val length: Int, val endId: Long, val padId: Long)

/** A file from token numbers to hidden states. */
data class EncoderSpec(
    val file: String,
    val sha256: String,
    val beside: List<String>,
    val tokens: Input,
    val method: Method,
)

data class GivenInput(val name: String, val file: String, val shape: List<Int>)

/** Typed access to JSON: a value of another type is an error that says where it stands. */
private class Reader(private val values: JSONObject, private val place: String) {
    fun manifest(): Manifest {
        val schema = values.opt("schema")
        if (schema != Manifest.SCHEMA) {
            throw ManifestException("manifest.json: its schema is $schema, and this app reads ${Manifest.SCHEMA}")
        }
        val files = list("files") { it.text("path") to it.text("sha256") }
        val artifacts = list("artifacts") { it.artifact() }
        val golden = at("golden").golden()
        if (artifacts.isEmpty()) fail("artifacts", "is empty")
        for (file in artifacts.map { it.goldenFile } + golden.inputs.map { it.file }) {
            if (files.none { it.first == file }) fail("files", "has no $file")
        }
        val classNames = texts("class_names")
        return Manifest(
            text("name"), text("license"), classNames, artifacts, golden, at("tools").text("edgegen"), files.toMap(),
            optional("text") { at(it).textSpec() },
        )
    }

    private fun artifact() = Artifact(
        file = text("file"),
        runtime = text("runtime"),
        scheme = text("scheme"),
        bytes = whole("nbytes"),
        sha256 = text("sha256"),
        beside = texts("beside"),
        inputs = list("inputs") { it.input() },
        methods = list("methods") { Method(it.optional("name") { text(it) }, it.at("output").output()) }
            .ifEmpty { fail("methods", "is empty") },
        goldenFile = at("golden").text("file"),
        floorDb = at("golden").number("floor_db"),
        textEncoder = optional("text_encoder") { text(it) },
        students = optional("students") { key -> list(key) { it.student() } }.orEmpty(),
    )

    private fun student() = Student(
        ModelFile(text("file"), whole("nbytes"), text("sha256"), texts("beside")),
        items("classes") { (it as? Int) ?: fail("classes", "has $it") },
    )

    private fun textSpec() = TextSpec(at("tokenizer").tokenizer(), list("encoders") { it.encoder() })

    private fun tokenizer() = TokenizerSpec(text("file"), whole("length").toInt(), whole("end_id"), whole("pad_id"))

    private fun encoder() = EncoderSpec(
        file = text("file"),
        sha256 = text("sha256"),
        beside = texts("beside"),
        tokens = at("tokens").run { Input(text("name"), Role.OTHER, type("dtype"), shape("shape"), null, null, 0) },
        method = Method(null, at("hidden_states").run { Output(text("name"), type("dtype"), shape("shape"), Layout.OTHER, 0.0, 1.0) }),
    )

    private fun input() = Input(
        name = text("name"),
        role = Role.entries.find { it.name.lowercase() == text("role") } ?: Role.OTHER,
        type = type("dtype"),
        shape = shape("shape"),
        low = optional("low") { number(it) },
        high = optional("high") { number(it) },
        seedOffset = if (values.has("seed_offset")) whole("seed_offset") else 0,
    )

    private fun output(): Output {
        val layout = Layout.entries.find { it.name == text("layout") } ?: Layout.OTHER
        val output = Output(text("name"), type("dtype"), shape("shape"), layout, number("low"), number("high"))
        if (!(output.low < output.high)) fail("low", "is ${output.low}, and high is ${output.high}")
        return output
    }

    private fun golden(): Golden {
        val samples = list("samples") {
            val index = if (it.values.has("index")) it.whole("index") else 0
            val (label, prompt) = listOf("label", "prompt").map { key -> it.optional(key) { whole(key).toInt() } }
            Sample(it.whole("seed"), index, label, prompt)
        }
        val inputs = list("inputs") { GivenInput(it.text("name"), it.text("file"), it.sizes("shape")) }
        val shape = sizes("shape")
        if (shape.size != 4 || shape[0] != samples.size) fail("shape", "is $shape, and there are ${samples.size} samples")
        val prompts = optional("prompts") { key -> list(key) { it.prompt() } }.orEmpty()
        if (samples.any { it.prompt != null && it.prompt >= prompts.size }) fail("samples", "one has no prompt")
        return Golden(samples, inputs, shape, prompts)
    }

    private fun prompt() = Prompt(text("text"), items("tokens") { (it as? Number)?.toLong() ?: fail("tokens", "has $it") })

    /** Sizes of one sample: a symbolic batch is 1. */
    private fun shape(key: String): List<Int> = items(key) { value -> if (value == "batch_size") 1 else size(key, value) }

    private fun sizes(key: String): List<Int> = items(key) { size(key, it) }

    private fun size(key: String, value: Any): Int =
        (value as? Int)?.takeIf { it > 0 } ?: fail(key, "has the size $value; a size is 1 or more")

    private fun type(key: String): Type =
        Type.entries.find { it.name.lowercase() == text(key) } ?: fail(key, "is ${text(key)}, which this app does not read")

    private fun <T> list(key: String, read: (Reader) -> T): List<T> {
        var position = 0
        return items(key) { value ->
            val inner = "$place$key.${position++}"
            read(Reader(value as? JSONObject ?: throw ManifestException("manifest.json: $inner: is no object"), "$inner."))
        }
    }

    private fun texts(key: String): List<String> = items(key) { it as? String ?: fail(key, "has $it, which is no text") }

    private fun <T> items(key: String, read: (Any) -> T): List<T> {
        val array = value(key) as? JSONArray ?: fail(key, "is no list")
        return List(array.length()) { read(array.get(it)) }
    }

    private fun at(key: String) = Reader(value(key) as? JSONObject ?: fail(key, "is no object"), "$place$key.")

    private fun text(key: String): String = value(key) as? String ?: fail(key, "is no text")

    private fun number(key: String): Double =
        (value(key) as? Number)?.toDouble()?.takeIf { it.isFinite() } ?: fail(key, "is no number")

    private fun whole(key: String): Long = when (val value = value(key)) {
        is Int -> value.toLong()
        is Long -> value
        else -> null
    }?.takeIf { it >= 0 } ?: fail(key, "is ${value(key)}, and not a whole number from 0")

    private fun <T> optional(key: String, read: Reader.(String) -> T): T? =
        if (values.isNull(key)) null else read(key)

    private fun value(key: String): Any = values.opt(key) ?: fail(key, "is missing")

    private fun fail(key: String, reason: String): Nothing = throw ManifestException("manifest.json: $place$key: $reason")
}
