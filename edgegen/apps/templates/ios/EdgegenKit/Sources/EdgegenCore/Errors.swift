import Foundation

/// All that goes wrong between a bundle and a picture; its description says what to do.
public enum GeneratorError: Error, Equatable, LocalizedError {
    /// manifest.json is no manifest of edgegen, is of another version, or its parts contradict each other.
    case manifest(String)
    /// A file of the bundle is not there, or cannot be read or written.
    case file(String)
    /// A file does not hold what the manifest says: it was cut, changed or mixed up.
    case hash(file: String, expected: String, actual: String)
    /// The caller gave a label, an image or a seed that the generator does not take.
    case input(String)
    /// The runtime gave something else than the manifest says.
    case output(String)
    /// The runtime could not load or run the model.
    case inference(String)

    public var errorDescription: String? {
        switch self {
        case let .manifest(text), let .file(text), let .input(text), let .output(text), let .inference(text):
            text
        case let .hash(file, expected, actual):
            "\(file): its SHA-256 is \(actual), and the manifest says \(expected); install the app again"
        }
    }
}
