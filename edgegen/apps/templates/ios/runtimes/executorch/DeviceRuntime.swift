import EdgegenCore
import ExecuTorch
import Foundation

/// Runs a .pte of a bundle in ExecuTorch, one call after the other, on a thread of its own.
public actor DeviceRuntime: ModelRuntime {
    public nonisolated let about: String
    private let module: Module
    private let inputNames: [String]
    private let thread = OwnThread()

    public nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

    private init(_ place: URL, _ artifact: Artifact, units: ComputeUnits) {
        about = "ExecuTorch on \(ProcessInfo.processInfo.operatingSystemVersionString), \(units.name)"
        // Mapped into memory: pages of weights are read when they are first used.
        module = Module(filePath: place.path, loadMode: .mmap)
        inputNames = artifact.inputs.map(\.name)
    }

    /// Compares a file of the artifact with the manifest, and loads it.
    ///
    /// - Throws: ``GeneratorError``: `file`, `hash` or `manifest` where the bundle is not as written, `inference` where
    ///   ExecuTorch refuses the file
    public static func open(
        _ file: ModelFile, _ bundle: ModelBundle, _ artifact: Artifact, units: ComputeUnits = .ofFile
    ) async throws -> DeviceRuntime {
        let runtime = DeviceRuntime(try bundle.checkedPlace(of: file), artifact, units: units)
        try await runtime.load(artifact.method)
        return runtime
    }

    private func load(_ method: EdgegenCore.Method) throws {
        try inference("load the model") { try module.load(name(of: method)) }
    }

    /// ExecuTorch takes its inputs by position: that of the manifest.
    public func run(_ method: EdgegenCore.Method, inputs: [String: EdgegenCore.Tensor]) throws -> EdgegenCore.Tensor {
        try Task.checkCancellation()
        let values = try inputNames.map { name in
            guard let tensor = inputs[name] else { throw GeneratorError.inference("the model needs the input \(name)") }
            return native(tensor)
        }
        let results = try inference("run the model") { try module.execute(name(of: method), values) }
        return try tensor(results.first, method.output)
    }

    private func name(of method: EdgegenCore.Method) -> String { method.name ?? "forward" }

    private func native(_ tensor: EdgegenCore.Tensor) -> any ValueConvertible {
        switch tensor.values {
        case let .float32(numbers): ExecuTorch.Tensor(numbers, shape: tensor.shape)
        case let .int64(numbers): ExecuTorch.Tensor(numbers, shape: tensor.shape)
        case let .int32(numbers): ExecuTorch.Tensor(numbers, shape: tensor.shape)
        case let .uint8(numbers): ExecuTorch.Tensor(numbers, shape: tensor.shape)
        }
    }

    private func tensor(_ value: Value?, _ output: Output) throws -> EdgegenCore.Tensor {
        if output.dtype == .uint8, let bytes: ExecuTorch.Tensor<UInt8> = value?.tensor() {
            return Tensor(bytes.shape, .uint8(bytes.scalars()))
        }
        if output.dtype == .float32, let numbers: ExecuTorch.Tensor<Float> = value?.tensor() {
            return Tensor(numbers.shape, .float32(numbers.scalars()))
        }
        throw GeneratorError.output("ExecuTorch gave no \(output.name) of \(output.dtype), as the manifest says")
    }

    private func inference<Result>(_ what: String, _ call: () throws -> Result) throws -> Result {
        do {
            return try call()
        } catch {
            throw GeneratorError.inference("ExecuTorch cannot \(what): \(error.localizedDescription)")
        }
    }
}

/// Where the model runs: the file says it, there is nothing to choose.
public enum ComputeUnits: CaseIterable, Sendable {
    case ofFile

    /// For people.
    public var name: String { {{units_quoted}} }
}

/// Runs the jobs of an actor one after the other outside of Swift's pool, whose few threads must never wait.
private final class OwnThread: SerialExecutor {
    private let queue = DispatchQueue(label: "edgegen.runtime", qos: .userInitiated)

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.async { job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    }

    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}
