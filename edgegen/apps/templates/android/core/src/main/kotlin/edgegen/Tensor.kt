package edgegen

/** Numbers in row-major order with the sizes of their axes; what a [Runtime] takes and gives. */
sealed class Tensor(val shape: List<Int>, count: Int) {
    init {
        require(count == shape.fold(1, Int::times)) { "$count values do not fill a tensor of $shape" }
    }
}

class FloatTensor(shape: List<Int>, val values: FloatArray) : Tensor(shape, values.size)

class LongTensor(shape: List<Int>, val values: LongArray) : Tensor(shape, values.size)

class IntTensor(shape: List<Int>, val values: IntArray) : Tensor(shape, values.size)

/** Unsigned bytes. */
class ByteTensor(shape: List<Int>, val values: ByteArray) : Tensor(shape, values.size)
