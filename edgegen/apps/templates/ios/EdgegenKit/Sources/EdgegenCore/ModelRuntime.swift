/// What runs a model. ``Generator`` uses it from one task at a time.
public protocol ModelRuntime: AnyObject {
    /// Name and version, for the latency log.
    var about: String { get }

    /// Runs a method of the model.
    ///
    /// - Parameter inputs: by name
    /// - Returns: the one output, as `method.output` describes it
    /// - Throws: ``GeneratorError/inference(_:)`` where the model cannot be run
    func run(_ method: Method, inputs: [String: Tensor]) throws -> Tensor
}
