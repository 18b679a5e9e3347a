package android.graphics

import java.io.InputStream

class Bitmap private constructor() {
    enum class Config { ARGB_8888 }

    val width: Int = TODO()
    val height: Int = TODO()

    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int): Unit = TODO()

    companion object {
        fun createBitmap(colors: IntArray, width: Int, height: Int, config: Config): Bitmap = TODO()

        fun createScaledBitmap(source: Bitmap, width: Int, height: Int, filter: Boolean): Bitmap = TODO()
    }
}

object BitmapFactory {
    fun decodeStream(stream: InputStream?): Bitmap? = TODO()
}
