package org.pytorch.executorch

class EValue private constructor() {
    val isTensor: Boolean = TODO()

    fun toTensor(): Tensor = TODO()

    companion object {
        fun from(tensor: Tensor): EValue = TODO()
    }
}

abstract class Tensor {
    val dataAsFloatArray: FloatArray = TODO()
    val dataAsUnsignedByteArray: ByteArray = TODO()

    fun shape(): LongArray = TODO()

    companion object {
        fun fromBlob(data: FloatArray, shape: LongArray): Tensor = TODO()

        fun fromBlob(data: LongArray, shape: LongArray): Tensor = TODO()

        fun fromBlob(data: IntArray, shape: LongArray): Tensor = TODO()

        fun fromBlobUnsigned(data: ByteArray, shape: LongArray): Tensor = TODO()
    }
}

class Module private constructor() {
    fun execute(methodName: String, vararg inputs: EValue): Array<EValue> = TODO()

    fun destroy(): Unit = TODO()

    companion object {
        const val LOAD_MODE_MMAP: Int = 1

        fun load(modelPath: String, loadMode: Int, numThreads: Int): Module = TODO()
    }
}
