import CoreML
import CoreVideo
import EdgegenCore
import Foundation

/// Runs an .mlpackage of a bundle in Core ML, whose asynchronous predictions may be asked for by several tasks at once.
public final class DeviceRuntime: ModelRuntime, @unchecked Sendable {
    public let about: String
    private let model: MLModel

    private init(_ model: MLModel, units: ComputeUnits) {
        self.model = model
        about = "Core ML of \(ProcessInfo.processInfo.operatingSystemVersionString), \(units.name)"
    }

    /// Compares a file of the artifact with the manifest, compiles it at the first start, and loads the model.
    ///
    /// The compiled model is kept in Application Support by the hash of what it was made from: a new model of an update
    /// is compiled again, and an older one is removed.
    ///
    /// - Throws: ``GeneratorError``: `file`, `hash` or `manifest` where the bundle is not as written, `inference` where
    ///   Core ML refuses the model
    public static func open(
        _ file: ModelFile, _ bundle: ModelBundle, _ artifact: Artifact, units: ComputeUnits = .all
    ) async throws -> DeviceRuntime {
        let compiled = try await compiledPlace(file, bundle, artifact)
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.ofCoreML
        do {
            let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
            return DeviceRuntime(model, units: units)
        } catch {
            throw GeneratorError.inference("Core ML cannot load \(file.name): \(error.localizedDescription)")
        }
    }

    public func run(_ method: EdgegenCore.Method, inputs: [String: Tensor]) async throws -> Tensor {
        let output = method.output
        do {
            let values = try inputs.mapValues { MLFeatureValue(multiArray: try Self.array($0)) }
            let provider = try MLDictionaryFeatureProvider(dictionary: values)
            // Of two methods with this name, the one that is called with `await` leaves the thread to other tasks.
            let outputs = try await model.prediction(from: provider, options: MLPredictionOptions())
            guard let value = outputs.featureValue(for: output.name) else {
                throw GeneratorError.output("the model gave nothing with the name \(output.name)")
            }
            return try output.layout == .pixelBuffer ? Self.pixels(value, output) : Self.numbers(value, output)
        } catch let error where error is GeneratorError || error is CancellationError {
            throw error
        } catch {
            throw GeneratorError.inference("Core ML cannot run the model: \(error.localizedDescription)")
        }
    }

    private static func numbers(_ value: MLFeatureValue, _ output: Output) throws -> Tensor {
        guard let array = value.multiArrayValue else {
            throw GeneratorError.output("the model's \(output.name) is no array, as the manifest says")
        }
        // Of any strides, and of float16 as well
        let shaped = MLShapedArray<Float>(converting: array)
        return Tensor(shaped.shape, .float32(shaped.scalars))
    }

    private static func pixels(_ value: MLFeatureValue, _ output: Output) throws -> Tensor {
        guard let buffer = value.imageBufferValue else {
            throw GeneratorError.output("the model's \(output.name) is no image, as the manifest says")
        }
        let format: PixelFormat =
            switch CVPixelBufferGetPixelFormatType(buffer) {
            case kCVPixelFormatType_OneComponent8: .gray
            case kCVPixelFormatType_32BGRA: .bgra
            case let other: throw GeneratorError.output("the model's \(output.name) has pixels of the format \(other)")
            }
        let status = CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        guard status == kCVReturnSuccess, let start = CVPixelBufferGetBaseAddress(buffer) else {
            throw GeneratorError.output("the pixels of \(output.name) cannot be read: Core Video says \(status)")
        }
        let (height, bytesPerRow) = (CVPixelBufferGetHeight(buffer), CVPixelBufferGetBytesPerRow(buffer))
        return try Tensor(
            rows: UnsafeRawBufferPointer(start: start, count: height * bytesPerRow), bytesPerRow: bytesPerRow,
            width: CVPixelBufferGetWidth(buffer), height: height, format: format)
    }

    private static func array(_ tensor: Tensor) throws -> MLMultiArray {
        switch tensor.values {
        case let .float32(numbers): MLMultiArray(MLShapedArray(scalars: numbers, shape: tensor.shape))
        case let .int32(numbers): MLMultiArray(MLShapedArray(scalars: numbers, shape: tensor.shape))
        case .int64, .uint8: throw GeneratorError.manifest("Core ML takes float32 and int32, and the manifest says other numbers")
        }
    }

    private static func compiledPlace(
        _ file: ModelFile, _ bundle: ModelBundle, _ artifact: Artifact
    ) async throws -> URL {
        do {
            let folder = try FileManager.default.url(
                for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true
            ).appendingPathComponent("edgegen", isDirectory: true)
            return try await CompiledModels(folder: folder).place(of: file, bundle, artifact) { source in
                try await MLModel.compileModel(at: source)
            }
        } catch let error as GeneratorError {
            throw error
        } catch {
            throw GeneratorError.inference("Core ML cannot compile \(file.name): \(error.localizedDescription)")
        }
    }
}

/// Where the model runs; the first is the choice of an app that was told nothing.
public enum ComputeUnits: CaseIterable, Sendable {
    case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

    /// For people.
    public var name: String {
        switch self {
        case .all: "all units"
        case .cpuAndNeuralEngine: "CPU and Neural Engine"
        case .cpuAndGPU: "CPU and GPU"
        case .cpuOnly: "CPU"
        }
    }

    var ofCoreML: MLComputeUnits {
        switch self {
        case .all: .all
        case .cpuAndNeuralEngine: .cpuAndNeuralEngine
        case .cpuAndGPU: .cpuAndGPU
        case .cpuOnly: .cpuOnly
        }
    }
}
