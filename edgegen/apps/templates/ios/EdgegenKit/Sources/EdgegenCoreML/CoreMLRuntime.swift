#if canImport(CoreML) // the core is tested elsewhere, too

import CoreML
import EdgegenCore
import Foundation

/// Runs an .mlpackage of a bundle in Core ML.
public final class CoreMLRuntime: ModelRuntime {
    public let about: String
    private let model: MLModel

    private init(_ model: MLModel, units: MLComputeUnits) {
        self.model = model
        about = "Core ML of \(ProcessInfo.processInfo.operatingSystemVersionString), \(units.name)"
    }

    /// Compares the files with the manifest, compiles them at the first start, and loads the model.
    ///
    /// The compiled model is kept in Application Support by the hash of what it was made from: a new model of an update
    /// is compiled again, and an older one is removed.
    ///
    /// - Throws: ``GeneratorError``: `file`, `hash` or `manifest` where the bundle is not as written, `inference` where
    ///   Core ML refuses the model
    public static func open(
        _ bundle: ModelBundle, _ artifact: Artifact, units: MLComputeUnits = .all
    ) async throws -> sending CoreMLRuntime {
        let compiled = try await compiledPlace(bundle, artifact)
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        do {
            let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
            return CoreMLRuntime(model, units: units)
        } catch {
            throw GeneratorError.inference("Core ML cannot load \(artifact.file): \(error.localizedDescription)")
        }
    }

    public func run(_ method: EdgegenCore.Method, inputs: [String: Tensor]) throws -> Tensor {
        do {
            let values = try inputs.mapValues { MLFeatureValue(multiArray: try Self.array($0)) }
            let outputs = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: values))
            guard let array = outputs.featureValue(for: method.output.name)?.multiArrayValue else {
                throw GeneratorError.output("the model gave no numbers with the name \(method.output.name)")
            }
            // Of any strides, and of float16 as well
            let shaped = MLShapedArray<Float>(converting: array)
            return Tensor(shaped.shape, .float32(shaped.scalars))
        } catch let error as GeneratorError {
            throw error
        } catch {
            throw GeneratorError.inference("Core ML cannot run the model: \(error.localizedDescription)")
        }
    }

    private static func array(_ tensor: Tensor) throws -> MLMultiArray {
        switch tensor.values {
        case let .float32(numbers): MLMultiArray(MLShapedArray(scalars: numbers, shape: tensor.shape))
        case let .int32(numbers): MLMultiArray(MLShapedArray(scalars: numbers, shape: tensor.shape))
        case .int64, .uint8: throw GeneratorError.manifest("Core ML takes float32 and int32, and the manifest says other numbers")
        }
    }

    private static func compiledPlace(_ bundle: ModelBundle, _ artifact: Artifact) async throws -> URL {
        let files = FileManager.default
        do {
            let folder = try files.url(
                for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true
            ).appendingPathComponent("edgegen", isDirectory: true)
            let place = folder.appendingPathComponent("\(artifact.sha256).mlmodelc", isDirectory: true)
            if files.fileExists(atPath: place.path) { return place }
            let source = try bundle.checkedPlace(of: artifact)
            let made = try await MLModel.compileModel(at: source)
            try? files.removeItem(at: folder)
            try files.createDirectory(at: folder, withIntermediateDirectories: true)
            try files.moveItem(at: made, to: place)
            return place
        } catch let error as GeneratorError {
            throw error
        } catch {
            throw GeneratorError.inference("Core ML cannot compile \(artifact.file): \(error.localizedDescription)")
        }
    }
}

extension MLComputeUnits {
    /// For people.
    public var name: String {
        switch self {
        case .cpuOnly: "CPU"
        case .cpuAndGPU: "CPU and GPU"
        case .cpuAndNeuralEngine: "CPU and Neural Engine"
        case .all: "all units"
        @unknown default: "units \(rawValue)"
        }
    }
}

#endif
