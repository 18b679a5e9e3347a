package edgegen

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.ln
import kotlin.math.sin
import kotlin.math.sqrt

/** Portable seeded noise: the numbers of edgegen's `edgegen.noise.normal`; its manual's page "Noise" specifies them. */
object Noise {
    private const val ROUNDS = 10
    private const val MULTIPLIER_0 = 0xD2511F53uL
    private const val MULTIPLIER_1 = 0xCD9E8D57uL
    private const val WEYL_0 = 0x9E3779B9u
    private const val WEYL_1 = 0xBB67AE85u
    private const val TWO_32 = 4294967296.0
    private const val LARGEST_ARRAY = Int.MAX_VALUE - 8

    /**
     * Standard normal noise for the samples [first] .. [first] + [count] - 1 of a seed, [size] values each, one after
     * the other. Sample i depends on the seed, i and [size] only.
     *
     * @param size values of one sample: channels * height * width
     * @throws IllegalArgumentException for a negative number, and for more values than an array holds
     */
    fun normal(seed: ULong, first: Long, count: Int, size: Int): FloatArray {
        require(first >= 0) { "first is $first; it must be 0 or more" }
        require(count >= 0) { "count is $count; it must be 0 or more" }
        require(size >= 0) { "size is $size; it must be 0 or more" }
        require(first <= Long.MAX_VALUE - count) { "first + count, $first + $count, is beyond ${Long.MAX_VALUE}" }
        require(count.toLong() * size <= LARGEST_ARRAY) { "$count * $size values do not fit an array" }
        val values = FloatArray(count * size)
        val words = IntArray(4)
        for (sample in 0 until count) {
            val index = first + sample
            val start = sample * size
            for (at in 0 until size step 4) {
                words[0] = at / 4
                words[1] = 0
                words[2] = index.toInt()
                words[3] = (index shr 32).toInt()
                philox4x32(words, seed.toUInt(), (seed shr 32).toUInt())
                pair(words[0], words[1], values, start + at, start + size)
                pair(words[2], words[3], values, start + at + 2, start + size)
            }
        }
        return values
    }

    /** Ten rounds of Philox4x32: the four [words] of a counter, 32 bits each, become four random words, in place. */
    fun philox4x32(words: IntArray, key0: UInt, key1: UInt) {
        var c0 = words[0].toUInt()
        var c1 = words[1].toUInt()
        var c2 = words[2].toUInt()
        var c3 = words[3].toUInt()
        var k0 = key0
        var k1 = key1
        repeat(ROUNDS) {
            val product0 = MULTIPLIER_0 * c0
            val product1 = MULTIPLIER_1 * c2
            c0 = (product1 shr 32).toUInt() xor c1 xor k0
            c1 = product1.toUInt()
            c2 = (product0 shr 32).toUInt() xor c3 xor k1
            c3 = product0.toUInt()
            k0 += WEYL_0
            k1 += WEYL_1
        }
        words[0] = c0.toInt()
        words[1] = c1.toInt()
        words[2] = c2.toInt()
        words[3] = c3.toInt()
    }

    /** Box-Muller in float64; what would lie at [end] or beyond is dropped. */
    private fun pair(word0: Int, word1: Int, values: FloatArray, at: Int, end: Int) {
        val radius = sqrt(-2.0 * ln((word0.toUInt().toDouble() + 0.5) / TWO_32))
        val angle = 2.0 * PI * ((word1.toUInt().toDouble() + 0.5) / TWO_32)
        if (at < end) values[at] = (radius * cos(angle)).toFloat()
        if (at + 1 < end) values[at + 1] = (radius * sin(angle)).toFloat()
    }
}
