import Foundation

/// How a picture was made, as its PNG carries it: `edgegen inspect PICTURE` shows it, and without a picture as its input
/// `edgegen sample --like PICTURE` makes it again.
public struct Recipe: Encodable, Sendable {
    public let schema = "edgegen.picture/1"
    public let artifact: String
    public let seed: UInt64
    public let label: Int?
    public let count = 1
    public let edgegen: String
    /// SHA-256 of the pixels that were given, by the input's name.
    public let inputs: [String: String]

    public init(artifactSha256: String, seed: UInt64, label: Int?, edgegen: String, inputs: [String: String] = [:]) {
        artifact = artifactSha256
        self.seed = seed
        self.label = label
        self.edgegen = edgegen
        self.inputs = inputs
    }

    var json: Data {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = .sortedKeys
            return try encoder.encode(self)
        }
    }
}
