package edgegen

import java.security.MessageDigest
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BundleTest {
    private val content = AppBundle.text(Bundle.MANIFEST)

    @Test
    fun everyFileOfTheAppIsAsWritten() {
        val bundle = Bundle.open(AppBundle.files)
        val artifact = AppBundle.artifact
        var bytes = 0L
        for (file in artifact.files.flatMap { listOf(it.name) + it.beside }) bundle.copy(file) { _, count -> bytes += count }
        assertEquals(artifact.bytes, bytes)
        bundle.manifest.text?.let { text ->
            for (file in text.filesOf(artifact)) bundle.copy(file) { _, _ -> }
        }
        assertEquals(bundle.manifest.golden.samples.size, bundle.goldenImages(artifact).size)
        for (input in artifact.inputs.filter { it.role == Role.IMAGE }) {
            assertEquals(bundle.manifest.golden.samples.size, bundle.goldenInputs(input).size)
        }
    }

    @Test
    fun changedFilesAreRefusedByName() {
        val edited = content.replaceFirst("\"name\"", "\"nome\"").toByteArray()
        val error = assertFailsWith<HashException> { Bundle.open(AppBundle.filesWith(Bundle.MANIFEST to edited)) }
        assertEquals(Bundle.MANIFEST, error.file)
        val missing = assertFailsWith<FileException> { Bundle.open(AppBundle.filesWith(Bundle.MANIFEST to null)) }
        assertContains(missing.message.orEmpty(), "manifest.json: is not in the app")

        val model = AppBundle.artifact.file
        val bytes = AppBundle.files.open(model).use { it.readBytes() }
        bytes[bytes.size / 2] = (bytes[bytes.size / 2] + 1).toByte()
        for (damaged in listOf(bytes, bytes.copyOf(bytes.size - 1), ByteArray(0))) {
            val bundle = Bundle.open(AppBundle.filesWith(model to damaged))
            val refused = assertFailsWith<HashException> { bundle.copy(model) { _, _ -> } }
            assertEquals(model, refused.file)
            assertEquals(AppBundle.artifact.sha256, refused.expected)
        }
        val without = Bundle.open(AppBundle.filesWith(model to null, AppBundle.artifact.goldenFile to ByteArray(7)))
        assertContains(assertFailsWith<FileException> { without.read(model) }.message.orEmpty(), model)
        assertFailsWith<HashException> { without.goldenImages(AppBundle.artifact) }
    }

    @Test
    fun theKeyThatIsWrongIsNamed() {
        val wrong = listOf(
            ("\"edgegen.bundle/1\"" to "\"edgegen.bundle/9\"") to "its schema is edgegen.bundle/9",
            ("\"artifacts\"" to "\"artefacts\"") to "artifacts: is missing",
            ("\"nbytes\": " to "\"nbytes\": -") to "artifacts.0.nbytes: is -",
            ("\"nbytes\": " to "\"nbytes\": 0.5, \"was\": ") to "artifacts.0.nbytes: is 0.5, and not a whole number",
            ("\"role\": " to "\"role\": 3, \"was\": ") to "artifacts.0.inputs.0.role: is no text",
            ("\"methods\": [" to "\"methods\": [], \"was\": [") to "artifacts.0.methods: is empty",
            ("\"layout\": \"" to "\"layout\": 4, \"was\": \"") to "artifacts.0.methods.0.output.layout: is no text",
            ("\"samples\": [" to "\"samples\": [], \"was\": [") to "golden.shape: is",
            ("\"files\": [" to "\"files\": [], \"was\": [") to "files: has no golden/",
            ("\"class_names\": [" to "\"class_names\": [7, ") to "class_names: has 7, which is no text",
            ("{" to "[{") to "is no JSON",
        )
        for ((change, expected) in wrong) {
            // Of two equal keys the first that is read counts; the signature has none of an artifact's.
            val start = if (change.first == "\"role\": ") content.indexOf("\"artifacts\"") else 0
            val (before, after) = content.substring(0, start) to content.substring(start)
            assertTrue(change.first in after, "the manifest has no ${change.first}")
            val edited = (before + after.replaceFirst(change.first, change.second)).toByteArray()
            val hash = MessageDigest.getInstance("SHA-256").digest(edited).joinToString("") { "%02x".format(it) }
            val files = AppBundle.filesWith(Bundle.MANIFEST to edited, "manifest.json.sha256" to "$hash  manifest.json\n".toByteArray())
            val error = assertFailsWith<ManifestException>(expected) { Bundle.open(files) }
            assertContains(error.message.orEmpty(), expected)
        }
        assertContains(assertFailsWith<ManifestException> { AppBundle.manifest.artifact("no.pte") }.message.orEmpty(), "no artifact no.pte")
    }

    @Test
    fun aFileThatTheManifestDoesNotListIsNotRead() {
        val bundle = Bundle.open(AppBundle.filesWith("other.bin" to ByteArray(3)))
        assertFailsWith<ManifestException> { bundle.read("other.bin") }
        assertTrue("other.bin" !in bundle.manifest.hashes)
    }
}
