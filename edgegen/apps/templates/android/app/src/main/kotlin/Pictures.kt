package {{package}}

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.net.Uri
import edgegen.FileException
import edgegen.Image
import edgegen.Input
import java.io.IOException
import kotlin.math.max

/** The picture as Android draws it. */
fun Image.toBitmap(): Bitmap = Bitmap.createBitmap(toArgb(), width, height, Bitmap.Config.ARGB_8888)

/** The middle of a picture that the user chose, as large as the model takes it. */
fun readPicture(context: Context, uri: Uri, input: Input): Image {
    val (_, channels, height, width) = input.shape
    val bitmap = try {
        context.contentResolver.openInputStream(uri)?.use { BitmapFactory.decodeStream(it) }
    } catch (e: IOException) {
        throw FileException("the picture cannot be read: ${e.message}", e)
    } ?: throw FileException("this is no picture that Android reads")
    val scale = max(width.toFloat() / bitmap.width, height.toFloat() / bitmap.height)
    val scaledWidth = max(width, (bitmap.width * scale).toInt())
    val scaledHeight = max(height, (bitmap.height * scale).toInt())
    val scaled = Bitmap.createScaledBitmap(bitmap, scaledWidth, scaledHeight, true)
    val colors = IntArray(width * height)
    scaled.getPixels(colors, 0, width, (scaledWidth - width) / 2, (scaledHeight - height) / 2, width, height)
    return Image.ofArgb(width, height, channels, colors)
}

/** Writes a file to the place that the user chose. */
fun writePicture(context: Context, uri: Uri, content: ByteArray) {
    try {
        val stream = context.contentResolver.openOutputStream(uri) ?: throw IOException("no stream")
        stream.use { it.write(content) }
    } catch (e: IOException) {
        throw FileException("the picture cannot be saved: ${e.message}", e)
    }
}
