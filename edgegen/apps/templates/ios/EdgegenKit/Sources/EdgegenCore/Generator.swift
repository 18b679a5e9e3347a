/// Makes pictures with one artifact of a bundle: an actor, so that its work is off the main thread. While the runtime
/// computes, no thread waits for it, and another call may begin.
public actor Generator {
    public nonisolated let artifact: Artifact
    private let runtimes: Runtimes

    /// - Parameter runtimes: opens the artifact's file, or that of the student that makes a class
    /// - Throws: ``GeneratorError/manifest(_:)`` where the artifact takes something that this app does not give
    public init(_ artifact: Artifact, runtimes: Runtimes) throws {
        for input in artifact.inputs { try Self.check(input, of: artifact) }
        let output = artifact.method.output
        if output.layout == .other || output.shape.count != 4 || ![.float32, .uint8].contains(output.dtype) {
            throw GeneratorError.manifest(
                "\(artifact.file): its output \(output.name) of \(output.dtype) is no picture of this app")
        }
        self.artifact = artifact
        self.runtimes = runtimes
    }

    /// One picture. The same arguments give the same picture on every device.
    ///
    /// - Parameters:
    ///   - seed: changes nothing where no input is noise
    ///   - label: class number from 0, where the model has classes
    ///   - image: of the size of the input, where the model takes a picture
    ///   - index: of the sample of this seed
    /// - Throws: ``GeneratorError``: `input` for a label or an image that the model does not take, `inference` where the
    ///   runtime fails or cannot open the file, `output` where it gives something else than the manifest says; `CancellationError`
    public func generate(
        seed: UInt64, label: Int? = nil, image: Picture? = nil, index: Int = 0
    ) async throws -> Picture {
        if index < 0 { throw GeneratorError.input("index \(index): must be 0 or more") }
        if let label, artifact.classes == 0 { throw GeneratorError.input("label \(label): this model has no classes") }
        if image != nil, artifact.input(.image) == nil { throw GeneratorError.input("this model takes no picture") }
        var inputs: [String: Tensor] = [:]
        for input in artifact.inputs {
            inputs[input.name] = try tensor(input, seed: seed, index: index, label: label, image: image)
        }
        let method = artifact.method
        let runtime = try await runtimes.runtime(of: artifact.file(of: label))
        return try await Picture(runtime.run(method, inputs: inputs), output: method.output)
    }

    /// Opens what makes a class, so that the next picture does not wait for it; nothing where it is open.
    ///
    /// - Throws: ``GeneratorError``: `manifest` where nothing makes this class; what opening throws
    @discardableResult
    public func prepare(label: Int? = nil) async throws -> ModelFile {
        let file = try artifact.file(of: label)
        _ = try await runtimes.runtime(of: file)
        return file
    }

    private static func check(_ input: Input, of artifact: Artifact) throws {
        let fits =
            switch input.role {
            case .noise: input.dtype == .float32
            case .class: input.count == 1 && input.high != nil && [.int64, .int32].contains(input.dtype)
            case .image: input.dtype == .float32 && input.shape.count == 4 && input.low != nil && input.high != nil
            case .other: false
            }
        if !fits || input.shape.first != 1 {
            throw GeneratorError.manifest(
                "\(artifact.file): its input \(input.name) of \(input.dtype), \(input.shape) is none that this app fills: "
                    + "noise, a class number or a picture, one sample at a time")
        }
    }

    private func tensor(_ input: Input, seed: UInt64, index: Int, label: Int?, image: Picture?) throws -> Tensor {
        switch input.role {
        case .noise:
            let noise = Noise.normal(seed: seed &+ input.seedOffset, first: index, count: 1, size: input.count)
            return Tensor(input.shape, .float32(noise))
        case .class:
            guard let label, (0..<artifact.classes).contains(label) else {
                let given = label.map(String.init) ?? "is missing"
                throw GeneratorError.input("label \(given): this model has the classes 0 to \(artifact.classes - 1)")
            }
            return Tensor(input.shape, input.dtype == .int64 ? .int64([Int64(label)]) : .int32([Int32(label)]))
        default:
            return try imageTensor(input, image)
        }
    }

    /// x = low + pixel (high - low) / 255, channel by channel.
    private func imageTensor(_ input: Input, _ image: Picture?) throws -> Tensor {
        let (channels, height, width) = (input.shape[1], input.shape[2], input.shape[3])
        let needed = "this model needs a picture of \(width) x \(height) pixels of \(channels) channels"
        guard let image else { throw GeneratorError.input(needed) }
        if (image.channels, image.height, image.width) != (channels, height, width) {
            throw GeneratorError.input(
                "the picture has \(image.width) x \(image.height) pixels of \(image.channels) channels; \(needed)")
        }
        let low = input.low ?? 0
        let step = Float(((input.high ?? 0) - low) / 255)
        let area = height * width
        let values = (0..<channels * area).map { at in
            Float(image.pixels[at % area * channels + at / area]) * step + Float(low)
        }
        return Tensor(input.shape, .float32(values))
    }
}
