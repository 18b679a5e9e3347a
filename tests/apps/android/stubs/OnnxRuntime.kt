package ai.onnxruntime

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

class OrtException(message: String) : Exception(message)

interface OnnxValue : AutoCloseable

class TensorInfo {
    val shape: LongArray = TODO()
}

class OnnxTensor private constructor() : OnnxValue {
    val info: TensorInfo = TODO()
    val byteBuffer: ByteBuffer = TODO()
    val floatBuffer: FloatBuffer? = TODO()

    override fun close(): Unit = TODO()

    companion object {
        fun createTensor(env: OrtEnvironment, data: FloatBuffer, shape: LongArray): OnnxTensor = TODO()

        fun createTensor(env: OrtEnvironment, data: LongBuffer, shape: LongArray): OnnxTensor = TODO()

        fun createTensor(env: OrtEnvironment, data: IntBuffer, shape: LongArray): OnnxTensor = TODO()
    }
}

class OrtEnvironment private constructor() {
    fun createSession(modelPath: String, options: OrtSession.SessionOptions): OrtSession = TODO()

    companion object {
        fun getEnvironment(): OrtEnvironment = TODO()
    }
}

class OrtSession private constructor() : AutoCloseable {
    fun run(inputs: Map<String, OnnxTensor>, requestedOutputs: Set<String>): Result = TODO()

    override fun close(): Unit = TODO()

    class SessionOptions : AutoCloseable {
        fun setIntraOpNumThreads(numThreads: Int): Unit = TODO()

        override fun close(): Unit = TODO()
    }

    class Result private constructor() : AutoCloseable {
        fun get(index: Int): OnnxValue = TODO()

        override fun close(): Unit = TODO()
    }
}
