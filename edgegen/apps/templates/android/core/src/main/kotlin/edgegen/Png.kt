package edgegen

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.util.zip.CRC32
import java.util.zip.Deflater
import java.util.zip.DeflaterOutputStream

/** Writes PNG files (ISO/IEC 15948), which Android's Bitmap writes without text. */
object Png {
    private const val KEYWORD = "edgegen"
    private val SIGNATURE = byteArrayOf(0x89.toByte(), 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A)

    /** The file, with the recipe in a text chunk (iTXt, as a prompt has any letters) before the pixels. */
    fun encode(image: Image, recipe: Recipe): ByteArray {
        val header = ByteBuffer.allocate(13).putInt(image.width).putInt(image.height)
        // 8 bits; gray is colour type 0, RGB 2; deflate, filters by line, not interlaced
        header.put(byteArrayOf(8, if (image.channels == 3) 2 else 0, 0, 0, 0))
        val file = ByteArrayOutputStream()
        file.write(SIGNATURE)
        file.chunk("IHDR", header.array())
        // Not packed; no language and no translated keyword
        file.chunk("iTXt", "$KEYWORD\u0000\u0000\u0000\u0000\u0000${recipe.toJson()}".toByteArray())
        file.chunk("IDAT", deflated(image))
        file.chunk("IEND", ByteArray(0))
        return file.toByteArray()
    }

    private fun deflated(image: Image): ByteArray {
        val content = ByteArrayOutputStream()
        val deflater = Deflater(Deflater.DEFAULT_COMPRESSION)
        DeflaterOutputStream(content, deflater).use { stream ->
            val line = image.width * image.channels
            for (row in 0 until image.height) {
                stream.write(0) // no filter
                stream.write(image.pixels, row * line, line)
            }
        }
        deflater.end()
        return content.toByteArray()
    }

    private fun ByteArrayOutputStream.chunk(type: String, content: ByteArray) {
        val name = type.toByteArray(Charsets.US_ASCII)
        val crc = CRC32().apply {
            update(name)
            update(content)
        }
        write(ByteBuffer.allocate(4).putInt(content.size).array())
        write(name)
        write(content)
        write(ByteBuffer.allocate(4).putInt(crc.value.toInt()).array())
    }
}
