package {{package}}

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import edgegen.ByteTensor
import edgegen.FloatTensor
import edgegen.InferenceException
import edgegen.IntTensor
import edgegen.LongTensor
import edgegen.Method
import edgegen.OutputException
import edgegen.Runtime
import edgegen.Tensor
import edgegen.Type
import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

/**
 * An .onnx file in ONNX Runtime on the CPU. It gets the path, not a mapped buffer: of a buffer it makes a copy of its
 * own first, and parses the file in both cases.
 */
class ModelRuntime(model: File, override val threads: Int) : Runtime {
    override val about = "ONNX Runtime on Android"

    private val environment = inference("start") { OrtEnvironment.getEnvironment() }
    private val session = inference("load ${model.name}") {
        OrtSession.SessionOptions().use { options ->
            options.setIntraOpNumThreads(threads)
            environment.createSession(model.path, options)
        }
    }

    override fun run(method: Method, inputs: Map<String, Tensor>): Tensor {
        val opened = mutableListOf<OnnxTensor>()
        try {
            return inference("run the model") {
                val feeds = inputs.mapValues { (_, tensor) -> native(tensor).also { opened += it } }
                session.run(feeds, setOf(method.output.name)).use { results ->
                    val output = results.get(0) as? OnnxTensor
                        ?: throw OutputException("ONNX Runtime gave no tensor for ${method.output.name}")
                    read(output, method)
                }
            }
        } finally {
            opened.forEach { it.close() }
        }
    }

    override fun close() = session.close()

    private fun native(tensor: Tensor): OnnxTensor {
        val shape = tensor.shape.map { it.toLong() }.toLongArray()
        return when (tensor) {
            is FloatTensor -> OnnxTensor.createTensor(environment, FloatBuffer.wrap(tensor.values), shape)
            is LongTensor -> OnnxTensor.createTensor(environment, LongBuffer.wrap(tensor.values), shape)
            is IntTensor -> OnnxTensor.createTensor(environment, IntBuffer.wrap(tensor.values), shape)
            is ByteTensor -> throw InferenceException("no input of bytes is known to this app")
        }
    }

    private fun read(tensor: OnnxTensor, method: Method): Tensor {
        val shape = tensor.info.shape.map { it.toInt() }
        if (method.output.type == Type.UINT8) {
            val buffer: ByteBuffer = tensor.byteBuffer
            return ByteTensor(shape, ByteArray(buffer.remaining()).also { buffer.get(it) })
        }
        val buffer: FloatBuffer = tensor.floatBuffer
            ?: throw OutputException("ONNX Runtime gave other numbers than floats for ${method.output.name}")
        return FloatTensor(shape, FloatArray(buffer.remaining()).also { buffer.get(it) })
    }

    private fun <T> inference(what: String, call: () -> T): T = try {
        call()
    } catch (e: OrtException) {
        throw InferenceException("ONNX Runtime cannot $what: ${e.message}", e)
    } catch (e: LinkageError) {
        throw InferenceException("ONNX Runtime's library does not fit this device: ${e.message}", e)
    }
}
