package {{package}}

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
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import java.io.File
import org.pytorch.executorch.Tensor as ExecuTorchTensor

/** A .pte file in ExecuTorch, mapped into memory: pages of weights are read when they are first used. */
class ModelRuntime(model: File, override val threads: Int) : Runtime {
    override val about = "ExecuTorch on Android"

    private val module = inference("load ${model.name}") { Module.load(model.path, Module.LOAD_MODE_MMAP, threads) }

    override fun run(method: Method, inputs: Map<String, Tensor>): Tensor {
        val output = method.output
        val results = inference("run the model") {
            module.execute(method.name ?: "forward", *inputs.values.map { EValue.from(native(it)) }.toTypedArray())
        }
        val tensor = results.firstOrNull()?.takeIf { it.isTensor }?.toTensor()
            ?: throw OutputException("ExecuTorch gave no tensor for ${output.name}")
        val shape = tensor.shape().map { it.toInt() }
        return inference("read ${output.name}") {
            when (output.type) {
                Type.UINT8 -> ByteTensor(shape, tensor.dataAsUnsignedByteArray)
                else -> FloatTensor(shape, tensor.dataAsFloatArray)
            }
        }
    }

    override fun close() = module.destroy()

    private fun native(tensor: Tensor): ExecuTorchTensor {
        val shape = tensor.shape.map { it.toLong() }.toLongArray()
        return when (tensor) {
            is FloatTensor -> ExecuTorchTensor.fromBlob(tensor.values, shape)
            is LongTensor -> ExecuTorchTensor.fromBlob(tensor.values, shape)
            is IntTensor -> ExecuTorchTensor.fromBlob(tensor.values, shape)
            is ByteTensor -> ExecuTorchTensor.fromBlobUnsigned(tensor.values, shape)
        }
    }

    /** ExecuTorch throws RuntimeException and its subclasses, and an Error where its library is missing. */
    private fun <T> inference(what: String, call: () -> T): T = try {
        call()
    } catch (e: RuntimeException) {
        throw InferenceException("ExecuTorch cannot $what: ${e.message}", e)
    } catch (e: LinkageError) {
        throw InferenceException("ExecuTorch's library does not fit this device: ${e.message}", e)
    }
}
