import Foundation

/// A bundle in a folder, whose manifest was read and compared with its hash; a file is compared when it is read.
public struct ModelBundle: Sendable {
    public let manifest: Manifest
    public let folder: URL
    private let hashes: [String: String]

    /// - Throws: ``GeneratorError``: `file` where manifest or hash is missing, `hash` where the manifest was changed,
    ///   `manifest` where it says something that this app does not understand
    public init(folder: URL) throws {
        let name = "manifest.json"
        self.folder = folder
        let content = try Self.content(of: folder.appendingPathComponent(name), name)
        let line = try Self.content(of: folder.appendingPathComponent("\(name).sha256"), "\(name).sha256")
        let expected = String(decoding: line, as: UTF8.self).prefix { $0 != " " }
        let actual = SHA256Digest.hex(content)
        if actual != expected { throw GeneratorError.hash(file: name, expected: String(expected), actual: actual) }
        manifest = try Manifest.parse(content)
        hashes = Dictionary(manifest.files.map { ($0.path, $0.sha256) }) { first, _ in first }
    }

    /// The whole content of a file of the manifest.
    ///
    /// - Throws: ``GeneratorError``: `file` where it is missing, `hash` where it does not hold what the manifest says
    public func read(_ path: String) throws -> Data {
        guard let expected = hashes[path] else { throw GeneratorError.manifest("manifest.json: files: has no \(path)") }
        let content = try Self.content(of: folder.appendingPathComponent(path), path)
        let actual = SHA256Digest.hex(content)
        if actual != expected { throw GeneratorError.hash(file: path, expected: expected, actual: actual) }
        return content
    }

    /// Compares a model, which may be a folder, with the manifest; where it lies.
    ///
    /// - Throws: ``GeneratorError`` as ``read(_:)`` does
    public func checkedPlace(of file: ModelFile) throws -> URL {
        let paths = manifest.files.map(\.path).filter { $0 == file.name || $0.hasPrefix("\(file.name)/") }
        if paths.isEmpty { throw GeneratorError.manifest("manifest.json: files: has no \(file.name)") }
        for path in paths { _ = try read(path) }
        return folder.appendingPathComponent(file.name)
    }

    /// The golden images of an artifact.
    public func goldenImages(_ artifact: Artifact) throws -> [Picture] {
        try pictures(artifact.golden.file, shape: manifest.golden.shape)
    }

    /// The pictures that one input of the golden images takes, by sample.
    public func goldenInputs(_ input: Input) throws -> [Picture] {
        guard let given = manifest.golden.inputs.first(where: { $0.name == input.name }) else {
            throw GeneratorError.manifest("manifest.json: golden.inputs: has none for \(input.name)")
        }
        return try pictures(given.file, shape: given.shape)
    }

    private func pictures(_ path: String, shape: [Int]) throws -> [Picture] {
        let bytes = [UInt8](try read(path))
        if shape.count != 4 || bytes.count != shape.reduce(1, *) {
            throw GeneratorError.manifest("\(path): has \(bytes.count) bytes, and its shape is \(shape)")
        }
        let (height, width, channels) = (shape[1], shape[2], shape[3])
        let size = height * width * channels
        return (0..<shape[0]).map {
            Picture(width: width, height: height, channels: channels, pixels: Array(bytes[$0 * size..<($0 + 1) * size]))
        }
    }

    private static func content(of place: URL, _ path: String) throws -> Data {
        do {
            return try Data(contentsOf: place, options: .mappedIfSafe)
        } catch {
            throw GeneratorError.file("\(path): cannot be read: \(error.localizedDescription)")
        }
    }
}
