package edgegen

import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/** The files of a bundle, wherever they lie: assets, a folder, an archive. Paths have / between folders. */
fun interface BundleFiles {
    /** @throws IOException where there is no such file */
    fun open(path: String): InputStream
}

/** A bundle whose manifest was read and compared with its hash; every file is compared with it when it is read. */
class Bundle private constructor(val manifest: Manifest, private val files: BundleFiles) {
    /**
     * The whole content of a file of the manifest.
     *
     * @throws FileException where it is missing
     * @throws HashException where it does not hold what the manifest says
     */
    fun read(path: String): ByteArray {
        val content = readAll(files, path)
        compare(path, sha256(content))
        return content
    }

    /**
     * Hands a file, part by part, to [write] and then compares its hash: for models, which are copied and mapped
     * rather than held in memory.
     *
     * @throws FileException where it is missing
     * @throws HashException where it does not hold what the manifest says: what was written is to be deleted
     */
    fun copy(path: String, write: (part: ByteArray, count: Int) -> Unit) {
        val digest = MessageDigest.getInstance(SHA)
        open(files, path).use { stream ->
            val part = ByteArray(1 shl 16)
            while (true) {
                val count = try {
                    stream.read(part)
                } catch (e: IOException) {
                    throw FileException("$path: cannot be read: ${e.message}", e)
                }
                if (count < 0) break
                digest.update(part, 0, count)
                write(part, count)
            }
        }
        compare(path, hex(digest.digest()))
    }

    /** The golden images of an artifact and the inputs that they are made from. */
    fun goldenImages(artifact: Artifact): List<Image> = images(artifact.goldenFile, manifest.golden.shape)

    /** The pictures that one input of the golden images takes, by sample. */
    fun goldenInputs(input: Input): List<Image> {
        val given = manifest.golden.inputs.find { it.name == input.name }
            ?: throw ManifestException("manifest.json: golden.inputs: has none for ${input.name}")
        return images(given.file, given.shape)
    }

    private fun images(path: String, shape: List<Int>): List<Image> {
        val (count, height, width, channels) = shape
        val bytes = read(path)
        val size = height * width * channels
        if (bytes.size != count * size) {
            throw ManifestException("$path: has ${bytes.size} bytes, and $shape needs ${count * size}")
        }
        return List(count) { Image(width, height, channels, bytes.copyOfRange(it * size, (it + 1) * size)) }
    }

    private fun compare(path: String, actual: String) {
        val expected = manifest.hashes[path] ?: throw ManifestException("manifest.json: files: has no $path")
        if (actual != expected) throw HashException(path, expected, actual)
    }

    companion object {
        const val MANIFEST = "manifest.json"
        private const val SHA = "SHA-256"

        /**
         * Reads the manifest.
         *
         * @throws FileException where it or its hash is missing
         * @throws HashException where it was changed
         * @throws ManifestException where it says something that this app does not understand
         */
        fun open(files: BundleFiles): Bundle {
            val content = readAll(files, MANIFEST)
            val expected = readAll(files, "$MANIFEST.sha256").decodeToString().substringBefore(' ')
            val actual = sha256(content)
            if (actual != expected) throw HashException(MANIFEST, expected, actual)
            return Bundle(Manifest.parse(content.decodeToString()), files)
        }

        /** In hexadecimal. */
        fun sha256(content: ByteArray): String = hex(MessageDigest.getInstance(SHA).digest(content))

        private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }

        private fun readAll(files: BundleFiles, path: String): ByteArray = try {
            open(files, path).use { it.readBytes() }
        } catch (e: IOException) {
            throw FileException("$path: cannot be read: ${e.message}", e)
        }

        private fun open(files: BundleFiles, path: String): InputStream = try {
            files.open(path)
        } catch (e: IOException) {
            throw FileException("$path: is not in the app: ${e.message}", e)
        }
    }
}
