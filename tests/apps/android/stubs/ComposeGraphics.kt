package androidx.compose.ui.graphics

import android.graphics.Bitmap

class Color

interface ImageBitmap {
    val width: Int
    val height: Int
}

fun Bitmap.asImageBitmap(): ImageBitmap = TODO()

class FilterQuality {
    companion object {
        val None: FilterQuality = TODO()
        val Low: FilterQuality = TODO()
    }
}
