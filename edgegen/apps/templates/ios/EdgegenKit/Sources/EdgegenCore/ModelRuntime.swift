/// What runs a model; several tasks may call it at once.
public protocol ModelRuntime: Sendable {
    /// Name and version, for the latency log.
    var about: String { get }

    /// Runs a method of the model. It suspends its task, and blocks no thread of Swift's pool.
    ///
    /// - Parameter inputs: by name
    /// - Returns: the one output, as `method.output` describes it
    /// - Throws: ``GeneratorError/inference(_:)`` where the model cannot be run, `CancellationError` where its task was
    ///   cancelled
    func run(_ method: Method, inputs: [String: Tensor]) async throws -> Tensor
}
