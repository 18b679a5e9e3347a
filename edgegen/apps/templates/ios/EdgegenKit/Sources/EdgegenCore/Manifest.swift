import Foundation

/// What fills an input: see ``Generator``.
public enum Role: String, Decodable, Sendable {
    case noise, `class`, image, other

    public init(from decoder: any Decoder) throws {
        self = Role(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .other
    }
}

/// Of the numbers of a tensor.
public enum ElementType: String, Decodable, Sendable {
    case float32, float16, int64, int32, uint8
}

/// Order of the axes of an output; `other` is none that this app shows.
public enum Layout: String, Decodable, Sendable {
    case nchw = "NCHW"
    case nhwc = "NHWC"
    /// An image of the system's, which a ``ModelRuntime`` gives in the order NHWC.
    case pixelBuffer = "CVPixelBuffer"
    case other

    public init(from decoder: any Decoder) throws {
        self = Layout(rawValue: try decoder.singleValueContainer().decode(String.self)) ?? .other
    }
}

/// The parts of `manifest.json`, schema "edgegen.bundle/1", that a picture needs; keys beyond them are not read.
public struct Manifest: Decodable, Sendable {
    public static let schema = "edgegen.bundle/1"

    public let name: String
    public let license: String
    public let classNames: [String]
    public let artifacts: [Artifact]
    public let golden: Golden
    public let tools: Tools
    public let files: [FileEntry]

    /// - Throws: ``GeneratorError/manifest(_:)`` that names the key that is missing or wrong
    public static func parse(_ content: Data) throws -> Manifest {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        do {
            let found = try decoder.decode(Header.self, from: content).schema
            if found != schema {
                throw GeneratorError.manifest("manifest.json: its schema is \(found), and this app reads \(schema)")
            }
            let manifest = try decoder.decode(Manifest.self, from: content)
            try manifest.check()
            return manifest
        } catch let error as DecodingError {
            throw GeneratorError.manifest("manifest.json: \(describe(error))")
        }
    }

    /// - Throws: ``GeneratorError/manifest(_:)`` where there is no such file
    public func artifact(_ file: String) throws -> Artifact {
        if let artifact = artifacts.first(where: { $0.file == file }) { return artifact }
        let there = artifacts.map(\.file).joined(separator: ", ")
        throw GeneratorError.manifest("no artifact \(file); the manifest has \(there)")
    }

    private func check() throws {
        func fail(_ text: String) -> GeneratorError { .manifest("manifest.json: \(text)") }
        if artifacts.isEmpty { throw fail("artifacts: is empty") }
        let paths = Set(files.map(\.path))
        for path in artifacts.map(\.golden.file) + golden.inputs.map(\.file) where !paths.contains(path) {
            throw fail("files: has no \(path)")
        }
        for artifact in artifacts {
            if artifact.students?.isEmpty == true { throw fail("artifacts: \(artifact.file): students: is empty") }
            if artifact.methods.isEmpty { throw fail("artifacts: \(artifact.file): methods: is empty") }
            for output in artifact.methods.map(\.output) where !(output.low < output.high) {
                throw fail("artifacts: \(artifact.file): low is \(output.low), and high is \(output.high)")
            }
        }
        if golden.shape.count != 4 || golden.shape[0] != golden.samples.count {
            throw fail("golden.shape: is \(golden.shape), and there are \(golden.samples.count) samples")
        }
        let sizes = golden.shape + golden.inputs.flatMap(\.shape)
        if let wrong = sizes.first(where: { $0 < 1 }) { throw fail("golden: has the size \(wrong); a size is 1 or more") }
    }

    private struct Header: Decodable { let schema: String }

    private static func describe(_ error: DecodingError) -> String {
        func place(_ path: [any CodingKey]) -> String {
            path.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
        }
        return switch error {
        case let .keyNotFound(key, context): "\(place(context.codingPath + [key])): is missing"
        case let .valueNotFound(_, context): "\(place(context.codingPath)): is missing"
        case let .typeMismatch(_, context): "\(place(context.codingPath)): \(context.debugDescription)"
        case let .dataCorrupted(context):
            context.codingPath.isEmpty ? "is no JSON" : "\(place(context.codingPath)): \(context.debugDescription)"
        @unknown default: "\(error)"
        }
    }
}

/// Versions of what wrote the bundle.
public struct Tools: Decodable, Sendable {
    public let edgegen: String
}

/// A file of the bundle.
public struct FileEntry: Decodable, Sendable {
    public let path: String
    public let sha256: String
}

/// One exported file, or folder; or several, of which each makes the pictures of some classes: `file` and `sha256` are
/// those of the first, `nbytes` those of all.
public struct Artifact: Decodable, Sendable {
    public let file: String
    public let runtime: String
    public let scheme: String
    public let nbytes: Int
    public let sha256: String
    public let inputs: [Input]
    public let methods: [Method]
    public let golden: Expected
    /// nil where one file makes the pictures of all classes.
    public let students: [Student]?

    /// What a runtime opens for this artifact.
    public var files: [ModelFile] {
        students?.map(\.file) ?? [ModelFile(name: file, nbytes: nbytes, sha256: sha256)]
    }

    /// What makes the pictures of a class.
    ///
    /// - Throws: ``GeneratorError/manifest(_:)`` where no student does
    public func file(of label: Int?) throws -> ModelFile {
        guard let students else { return files[0] }
        if let label, let student = students.first(where: { $0.classes.contains(label) }) { return student.file }
        throw GeneratorError.manifest(
            "manifest.json: no student of \(file) makes the class \(label.map(String.init) ?? "that is missing")")
    }

    /// The method that gives bytes, where there is one: an app shows them as they are.
    public var method: Method { methods.first { $0.output.dtype == .uint8 } ?? methods[0] }

    public func input(_ role: Role) -> Input? { inputs.first { $0.role == role } }

    /// Number of classes; 0 where no input is a class.
    public var classes: Int { input(.class)?.high.map { Int($0) + 1 } ?? 0 }
}

/// A file, or folder, that a runtime opens.
public struct ModelFile: Hashable, Sendable {
    public let name: String
    public let nbytes: Int
    public let sha256: String
}

/// One of several files of an artifact, which makes the pictures of some classes.
public struct Student: Decodable, Sendable {
    public let file: ModelFile
    public let classes: [Int]

    private enum CodingKeys: CodingKey { case file, nbytes, sha256, classes }
}

extension Student {
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        file = ModelFile(
            name: try values.decode(String.self, forKey: .file), nbytes: try values.decode(Int.self, forKey: .nbytes),
            sha256: try values.decode(String.self, forKey: .sha256))
        classes = try values.decode([Int].self, forKey: .classes)
    }
}

/// Golden images of an artifact, and how near a device must come, in dB of PSNR.
public struct Expected: Decodable, Sendable {
    public let file: String
    public let floorDb: Double
}

/// One input; `low` and `high` are its least and greatest value, nil where unbounded.
public struct Input: Decodable, Sendable {
    public let name: String
    public let role: Role
    public let dtype: ElementType
    /// Of one sample: the first size is 1.
    public let shape: [Int]
    public let low: Double?
    public let high: Double?
    /// Its noise is that of seed + seedOffset.
    public let seedOffset: UInt64

    private enum CodingKeys: CodingKey { case name, role, dtype, shape, low, high, seedOffset }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        role = try values.decode(Role.self, forKey: .role)
        dtype = try values.decode(ElementType.self, forKey: .dtype)
        shape = try values.decode([Size].self, forKey: .shape).map(\.value)
        low = try values.decodeIfPresent(Double.self, forKey: .low)
        high = try values.decodeIfPresent(Double.self, forKey: .high)
        seedOffset = try values.decodeIfPresent(UInt64.self, forKey: .seedOffset) ?? 0
    }

    var count: Int { shape.dropFirst().reduce(1, *) }
}

/// What can be called in a file; the name is nil where the file does one thing.
public struct Method: Decodable, Sendable {
    public let name: String?
    public let output: Output
}

/// Of floats, `low` is black and `high` is white.
public struct Output: Decodable, Sendable {
    public let name: String
    public let dtype: ElementType
    public let shape: [Int]
    public let layout: Layout
    public let low: Double
    public let high: Double

    private enum CodingKeys: CodingKey { case name, dtype, shape, layout, low, high }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        name = try values.decode(String.self, forKey: .name)
        dtype = try values.decode(ElementType.self, forKey: .dtype)
        shape = try values.decode([Size].self, forKey: .shape).map(\.value)
        layout = try values.decode(Layout.self, forKey: .layout)
        low = try values.decode(Double.self, forKey: .low)
        high = try values.decode(Double.self, forKey: .high)
    }
}

/// What the model must give on every device, and from what.
public struct Golden: Decodable, Sendable {
    public let samples: [Sample]
    public let inputs: [GivenInput]
    public let shape: [Int]
}

public struct Sample: Decodable, Sendable {
    public let seed: UInt64
    public let index: Int
    public let label: Int?
}

public struct GivenInput: Decodable, Sendable {
    public let name: String
    public let file: String
    public let shape: [Int]
}

/// A size of a shape; a symbolic batch is 1, the one sample that an app makes at a time.
private struct Size: Decodable {
    let value: Int

    init(from decoder: any Decoder) throws {
        let single = try decoder.singleValueContainer()
        if let text = try? single.decode(String.self), text == "batch_size" {
            value = 1
            return
        }
        value = try single.decode(Int.self)
        if value < 1 {
            throw DecodingError.dataCorruptedError(in: single, debugDescription: "has the size \(value); a size is 1 or more")
        }
    }
}
