package edgegen

import org.json.JSONObject

/**
 * How a picture was made, as its PNG carries it: `edgegen inspect PICTURE` shows it, and without a picture as its input
 * `edgegen sample --like PICTURE` makes it again.
 *
 * @param inputs SHA-256 of the pixels that were given, by the input's name
 */
data class Recipe(
    val artifactSha256: String,
    val seed: Long,
    val label: Int?,
    val edgegen: String,
    val inputs: Map<String, String> = emptyMap(),
    val prompt: String? = null,
) {
    fun toJson(): String = JSONObject()
        .put("schema", "edgegen.picture/1")
        .put("artifact", artifactSha256)
        .put("seed", seed)
        .put("label", label ?: JSONObject.NULL)
        .put("count", 1)
        .put("prompt", prompt ?: JSONObject.NULL)
        .put("edgegen", edgegen)
        .put("inputs", JSONObject(inputs))
        .toString()
}
