package edgegen

import java.io.DataInputStream
import java.time.Instant
import java.util.zip.CRC32
import javax.imageio.ImageIO
import org.json.JSONObject
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

class FilesTest {
    private val recipe = Recipe("ab".repeat(32), 1234567890123L, null, "0.1.0")

    @Test
    fun anotherDecoderReadsThePictureAndTheRecipeIsInIt() {
        for (channels in listOf(1, 3)) {
            val image = Image(5, 3, channels, ByteArray(15 * channels) { (it * 17).toByte() })
            val file = Png.encode(image, recipe)
            val decoded = ImageIO.read(file.inputStream())
            assertEquals(5 to 3, decoded.width to decoded.height)
            val pixels = decoded.raster.getPixels(0, 0, 5, 3, null as IntArray?)
            assertContentEquals(image.pixels.map { it.toInt() and 0xFF }, pixels.toList())
            val text = chunks(file).getValue("iTXt").decodeToString()
            assertEquals("edgegen", text.substringBefore('\u0000'))
            val json = JSONObject(text.substringAfterLast('\u0000'))
            assertEquals("edgegen.picture/1", json.get("schema"))
            assertEquals(recipe.artifactSha256, json.get("artifact"))
            assertEquals(1234567890123L, json.get("seed"))
            assertTrue(json.isNull("label"))
            assertEquals(1, json.get("count"))
            assertEquals(0, json.getJSONObject("inputs").length())
        }
        assertEquals(3, JSONObject(recipe.copy(label = 3).toJson()).get("label"))
        val prompted = recipe.copy(prompt = "naïve 猫")
        val text = chunks(Png.encode(Image(1, 1, 1, ByteArray(1)), prompted)).getValue("iTXt").decodeToString()
        assertEquals("naïve 猫", JSONObject(text.substringAfterLast('\u0000')).get("prompt"))
    }

    @Test
    fun theLatencyLogHasTheFiguresOfItsRuns() {
        val log = LatencyLog(AppBundle.artifact, "0.1.0", "a runtime", 4)
        val file = AppBundle.artifact.files.first()
        log.loaded(file, 12.5)
        log.loaded(file, 0.1) // it was open
        log.add(file, 50.0)
        assertNull(log.toJson(emptyMap(), null))
        for (milliseconds in listOf(4.0, 1.0, 3.0, 2.5)) log.add(file, milliseconds)
        val now = Instant.parse("2026-01-02T03:04:05.678Z")
        val json = JSONObject(checkNotNull(log.toJson(mapOf("cpu" to "x", "os" to null), null, now)))
        assertEquals("2026-01-02T03:04:05Z", json.get("created"))
        val result = json.getJSONArray("results").getJSONObject(0)
        val latency = result.getJSONObject("latency")
        assertEquals(4, latency.getInt("runs"))
        assertEquals(2.75, latency.getDouble("p50_ms"), 1e-12)
        assertEquals(3.7, latency.getDouble("p90_ms"), 1e-12)
        assertEquals(1.0, latency.getDouble("min_ms"), 1e-12)
        assertEquals(2.625, latency.getDouble("mean_ms"), 1e-12)
        val cold = result.getJSONArray("cold").getJSONObject(0)
        assertEquals(12.5 to 50.0, cold.getDouble("load_ms") to cold.getDouble("first_ms"))
        val failed = SelfTest(AppBundle.artifact.file, 40.0, listOf(50.0, 12.0))
        val refused = JSONObject(checkNotNull(log.toJson(emptyMap(), failed, now)))
            .getJSONArray("results").getJSONObject(0)
        assertTrue(refused.isNull("latency"))
        assertEquals("failed", refused.getJSONObject("verdict").get("status"))
    }

    @Test
    fun noiseIsThatOfTheManual() {
        val expected = floatArrayOf(2.12769103f, 2.16137385f, -0.408270836f, -1.65975308f, 2.02131915f)
        assertContentEquals(expected, Noise.normal(42uL, 1, 1, 5))
    }

    /** The contents of all chunks by their type; each checksum is compared. */
    private fun chunks(file: ByteArray): Map<String, ByteArray> {
        val stream = DataInputStream(file.inputStream())
        stream.skipBytes(8)
        val contents = mutableMapOf<String, ByteArray>()
        while (stream.available() > 0) {
            val content = ByteArray(stream.readInt() + 4).also { stream.readFully(it) }
            assertEquals(CRC32().apply { update(content) }.value.toInt(), stream.readInt())
            contents[content.decodeToString(0, 4)] = content.copyOfRange(4, content.size)
        }
        return contents
    }
}
