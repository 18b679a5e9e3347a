// Answers the requests of tests/noise_programs.py.
import edgegen.Noise
import java.nio.ByteBuffer
import java.nio.ByteOrder

const val RUNS = 300

fun main() {
    for (line in generateSequence(::readlnOrNull)) {
        val words = answer(line.split(" "))
        val bytes = ByteBuffer.allocate(4 * words.size).order(ByteOrder.LITTLE_ENDIAN)
        words.forEach { bytes.putInt(it) }
        System.out.write(bytes.array())
    }
    System.out.flush()
}

fun answer(request: List<String>): IntArray {
    val given = request.drop(1)
    if (request[0] == "philox") {
        val (counter, key) = given.map { it.toUInt() }.chunked(4)
        return IntArray(4) { counter[it].toInt() }.also { Noise.philox4x32(it, key[0], key[1]) }
    }
    val draw = { Noise.normal(given[0].toULong(), given[1].toLong(), given[2].toInt(), given[3].toInt()) }
    val numbers = if (request[0] == "normal") draw() else floatArrayOf(fastest(draw))
    return IntArray(numbers.size) { numbers[it].toRawBits() }
}

fun fastest(draw: () -> FloatArray): Float = (0 until RUNS).minOf {
    val began = System.nanoTime()
    draw()
    (System.nanoTime() - began) / 1e6f
}
