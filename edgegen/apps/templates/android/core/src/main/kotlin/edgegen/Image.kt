package edgegen

import java.lang.Math.rint
import kotlin.math.log10

/**
 * A picture of bytes in the order height, width, channels.
 *
 * @property channels 1 for gray, 3 for red, green and blue
 */
class Image(val width: Int, val height: Int, val channels: Int, val pixels: ByteArray) {
    init {
        require(channels == 1 || channels == 3) { "$channels channels; a picture has 1 or 3" }
        require(width > 0 && height > 0) { "a picture of $width x $height pixels" }
        require(pixels.size == width * height * channels) {
            "${pixels.size} bytes for $width x $height pixels of $channels channels"
        }
    }

    /** Opaque colours as Android's Bitmap takes them, 0xAARRGGBB, line by line. */
    fun toArgb(): IntArray = IntArray(width * height) { at ->
        val (red, green, blue) = List(3) { pixels[at * channels + if (channels == 3) it else 0].toInt() and 0xFF }
        (0xFF shl 24) or (red shl 16) or (green shl 8) or blue
    }

    /** Peak signal-to-noise ratio in dB against a picture of the same size; infinite where both are equal. */
    fun psnr(other: Image): Double {
        require(width == other.width && height == other.height && channels == other.channels) { "two sizes" }
        var sum = 0.0
        for (at in pixels.indices) {
            val difference = ((pixels[at].toInt() and 0xFF) - (other.pixels[at].toInt() and 0xFF)).toDouble()
            sum += difference * difference
        }
        return if (sum == 0.0) Double.POSITIVE_INFINITY else 10 * log10(255.0 * 255.0 * pixels.size / sum)
    }

    companion object {
        /** From Android's colours: their red, green and blue, or their luma (ITU-R BT.601) for one channel. */
        fun ofArgb(width: Int, height: Int, channels: Int, colors: IntArray): Image {
            val pixels = ByteArray(width * height * channels)
            for (at in 0 until width * height) {
                val red = colors[at] shr 16 and 0xFF
                val green = colors[at] shr 8 and 0xFF
                val blue = colors[at] and 0xFF
                if (channels == 3) {
                    pixels[3 * at] = red.toByte()
                    pixels[3 * at + 1] = green.toByte()
                    pixels[3 * at + 2] = blue.toByte()
                } else {
                    pixels[at] = ((299 * red + 587 * green + 114 * blue + 500) / 1000).toByte()
                }
            }
            return Image(width, height, channels, pixels)
        }

        /**
         * The picture in the output of a model.
         *
         * @throws OutputException where its type, size or a value is not as `output` says
         */
        internal fun of(tensor: Tensor, output: Output): Image {
            val expected = output.shape
            if (tensor.shape != expected) {
                throw OutputException("the model gave an output of ${tensor.shape}, and the manifest says $expected")
            }
            val planes = output.layout == Layout.NCHW
            val channels = expected[if (planes) 1 else 3]
            val height = expected[if (planes) 2 else 1]
            val width = expected[if (planes) 3 else 2]
            if (tensor is ByteTensor && output.type == Type.UINT8 && !planes) {
                return Image(width, height, channels, tensor.values)
            }
            if (tensor !is FloatTensor || output.type != Type.FLOAT32) {
                throw OutputException("the model's output has other numbers than ${output.type}, as the manifest says")
            }
            val pixels = ByteArray(width * height * channels)
            for (at in pixels.indices) {
                val (pixel, channel) = at / channels to at % channels
                val value = tensor.values[if (planes) channel * width * height + pixel else at]
                if (!value.isFinite()) throw OutputException("the model gave $value, which is no pixel")
                pixels[at] = toByte(value, output)
            }
            return Image(width, height, channels, pixels)
        }

        /** round(255 (x - low) / (high - low)), cut to 0 .. 255: in float32 and to even, as edgegen itself does. */
        private fun toByte(value: Float, output: Output): Byte {
            val scaled = (value - output.low.toFloat()) * (255 / (output.high - output.low)).toFloat()
            return rint(scaled.toDouble()).coerceIn(0.0, 255.0).toInt().toByte()
        }
    }
}
