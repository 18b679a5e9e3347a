import Foundation

/// Models in the form that a system compiles them to, kept in a folder by the hash of what they were made from.
public struct CompiledModels: Sendable {
    private let folder: URL

    /// - Parameter folder: for these alone: what is of no file of the artifact is removed from it
    public init(folder: URL) { self.folder = folder }

    /// Where the compiled form of a model lies, made by `compile` where it is not there; those of other models than the
    /// artifact's, which are of older bundles, are removed then.
    ///
    /// - Parameter compile: gets the model, after its comparison with the manifest; gives a file or folder, which is moved
    /// - Throws: what `compile` throws; ``GeneratorError`` as ``ModelBundle/checkedPlace(of:)`` does; errors of the file system
    public func place(
        of file: ModelFile, _ bundle: ModelBundle, _ artifact: Artifact, compile: (URL) async throws -> URL
    ) async throws -> URL {
        let files = FileManager.default
        let place = place(of: file)
        if files.fileExists(atPath: place.path) { return place }
        let made = try await compile(try bundle.checkedPlace(of: file))
        try files.createDirectory(at: folder, withIntermediateDirectories: true)
        let kept = Set(artifact.files.map { self.place(of: $0).lastPathComponent })
        for other in try files.contentsOfDirectory(atPath: folder.path) where !kept.contains(other) {
            try? files.removeItem(at: folder.appendingPathComponent(other))
        }
        if files.fileExists(atPath: place.path) {  // another call was faster
            try? files.removeItem(at: made)
        } else {
            try files.moveItem(at: made, to: place)
        }
        return place
    }

    private func place(of file: ModelFile) -> URL {
        folder.appendingPathComponent("\(file.sha256).mlmodelc", isDirectory: true)
    }
}
