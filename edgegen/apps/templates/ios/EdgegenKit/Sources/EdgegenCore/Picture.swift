import Foundation

/// A picture of bytes in the order height, width, channels: 1 channel for gray, 3 for red, green and blue.
public struct Picture: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public let channels: Int
    public let pixels: [UInt8]

    public init(width: Int, height: Int, channels: Int, pixels: [UInt8]) {
        precondition(channels == 1 || channels == 3, "\(channels) channels; a picture has 1 or 3")
        precondition(pixels.count == width * height * channels, "\(pixels.count) bytes for \(width) x \(height)")
        self.width = width
        self.height = height
        self.channels = channels
        self.pixels = pixels
    }

    /// From red, green, blue and a fourth byte that is not read; for one channel their luma (ITU-R BT.601).
    public init(width: Int, height: Int, channels: Int, rgba: [UInt8]) {
        var pixels: [UInt8] = []
        pixels.reserveCapacity(width * height * channels)
        for at in stride(from: 0, to: 4 * width * height, by: 4) {
            let (red, green, blue) = (Int(rgba[at]), Int(rgba[at + 1]), Int(rgba[at + 2]))
            if channels == 3 {
                pixels += rgba[at..<at + 3]
            } else {
                pixels.append(UInt8((299 * red + 587 * green + 114 * blue + 500) / 1000))
            }
        }
        self.init(width: width, height: height, channels: channels, pixels: pixels)
    }

    /// Red, green, blue and 255, pixel by pixel.
    public var rgba: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(4 * width * height)
        for at in stride(from: 0, to: pixels.count, by: channels) {
            for channel in 0..<3 { bytes.append(pixels[channels == 3 ? at + channel : at]) }
            bytes.append(255)
        }
        return bytes
    }

    /// Peak signal-to-noise ratio in dB against a picture of the same size; infinite where both are equal.
    public func psnr(_ other: Picture) -> Double {
        precondition(pixels.count == other.pixels.count && width == other.width, "two sizes")
        let squares = zip(pixels, other.pixels).reduce(0) { sum, pair in
            let difference = Int(pair.0) - Int(pair.1)
            return sum + difference * difference
        }
        return squares == 0 ? .infinity : 10 * log10(255 * 255 * Double(pixels.count) / Double(squares))
    }

    /// The picture in the output of a model.
    ///
    /// - Throws: ``GeneratorError/output(_:)`` where its type, size or a value is not as `output` says
    init(_ tensor: Tensor, output: Output) throws {
        let shape = output.shape
        if tensor.shape != shape {
            throw GeneratorError.output("the model gave an output of \(tensor.shape), and the manifest says \(shape)")
        }
        let planes = output.layout == .nchw
        let (channels, height, width) = planes ? (shape[1], shape[2], shape[3]) : (shape[3], shape[1], shape[2])
        switch (tensor.values, output.dtype) {
        case let (.uint8(bytes), .uint8) where !planes:
            self.init(width: width, height: height, channels: channels, pixels: bytes)
        case let (.float32(values), .float32):
            let area = width * height
            let pixels = try (0..<area * channels).map { at in
                let value = values[planes ? at % channels * area + at / channels : at]
                if !value.isFinite { throw GeneratorError.output("the model gave \(value), which is no pixel") }
                return Self.byte(value, output)
            }
            self.init(width: width, height: height, channels: channels, pixels: pixels)
        default:
            throw GeneratorError.output("the model's output has other numbers than \(output.dtype), as the manifest says")
        }
    }

    /// round(255 (x - low) / (high - low)), cut to 0 ... 255: in float32 and to even, as edgegen itself does.
    private static func byte(_ value: Float, _ output: Output) -> UInt8 {
        let scaled = (value - Float(output.low)) * Float(255 / (output.high - output.low))
        return UInt8(min(max(scaled.rounded(.toNearestOrEven), 0), 255))
    }
}
