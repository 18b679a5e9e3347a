package edgegen

import org.json.JSONObject

/** How a picture was made, as its PNG carries it: `edgegen sample --like PICTURE` makes it again. */
data class Recipe(val artifactSha256: String, val seed: Long, val label: Int?, val edgegen: String) {
    fun toJson(): String = JSONObject()
        .put("schema", "edgegen.picture/1")
        .put("artifact", artifactSha256)
        .put("seed", seed)
        .put("label", label ?: JSONObject.NULL)
        .put("count", 1)
        .put("edgegen", edgegen)
        .toString()
}
