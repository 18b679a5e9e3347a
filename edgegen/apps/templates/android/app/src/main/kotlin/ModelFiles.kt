package {{package}}

import android.content.Context
import edgegen.Artifact
import edgegen.Bundle
import edgegen.BundleFiles
import edgegen.FileException
import edgegen.filesOf
import java.io.File
import java.io.IOException

/** The bundle in the app's assets, and its model as a file that a runtime can map into memory. */
class ModelFiles(private val context: Context) {
    /** Reads the manifest; raises [edgegen.GeneratorException] where it is not as it was written. */
    fun bundle(): Bundle = Bundle.open(BundleFiles { context.assets.open("$FOLDER/$it") })

    /**
     * The folder of the app with the model in it. The first time it is copied from the assets, which no runtime can map, and
     * its SHA-256 is compared with the manifest; a copy that was interrupted or is damaged is never used.
     */
    fun model(bundle: Bundle, artifact: Artifact): File {
        val folder = File(context.noBackupFilesDir, "models/${key(bundle, artifact)}")
        if (!folder.isDirectory) {
            val partial = File(folder.path + ".partial")
            try {
                partial.deleteRecursively()
                if (!partial.mkdirs()) throw IOException("no folder $partial")
                for (name in names(bundle, artifact)) {
                    File(partial, name).outputStream().use { stream ->
                        bundle.copy(name) { part, count -> stream.write(part, 0, count) }
                        stream.fd.sync() // before the rename, so that a lost battery leaves no empty file
                    }
                }
                folder.parentFile?.listFiles()?.filter { it != partial }?.forEach { it.deleteRecursively() } // of older versions
                if (!partial.renameTo(folder)) throw IOException("cannot rename $partial")
            } catch (e: IOException) {
                throw FileException("the model cannot be written to ${folder.parent}: ${e.message}", e)
            } finally {
                partial.deleteRecursively()
            }
        }
        return folder
    }

    companion object {
        /** The model of this app: a file of the bundle. */
        const val ARTIFACT = "{{artifact_kotlin}}"
        private const val FOLDER = "bundle"

        /** Of the model with its text encoder and tokenizer, where it has these. */
        fun key(bundle: Bundle, artifact: Artifact): String =
            Bundle.sha256(names(bundle, artifact).joinToString { bundle.manifest.hashes.getValue(it) }.encodeToByteArray())

        private fun names(bundle: Bundle, artifact: Artifact): List<String> =
            artifact.files.flatMap { listOf(it.name) + it.beside } + bundle.manifest.text?.filesOf(artifact).orEmpty()
    }
}
