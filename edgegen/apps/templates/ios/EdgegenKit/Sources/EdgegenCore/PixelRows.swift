/// How the bytes of a pixel follow each other.
public enum PixelFormat: Int, Sendable {
    case gray = 1
    /// Blue, green, red, and a fourth byte that is not read.
    case bgra = 4

    var bytes: Int { rawValue }
}

extension Tensor {
    /// The pixels of an image in memory: uint8 (1, height, width, channels), 1 channel for gray, else red, green, blue.
    ///
    /// - Parameters:
    ///   - rows: from top to bottom; what follows the pixels of a row is padding
    ///   - bytesPerRow: from the begin of a row to that of the next
    /// - Throws: ``GeneratorError/output(_:)`` where the rows do not hold that many pixels
    public init(
        rows: UnsafeRawBufferPointer, bytesPerRow: Int, width: Int, height: Int, format: PixelFormat
    ) throws {
        let used = width * format.bytes
        if width < 1 || height < 1 || bytesPerRow < used || rows.count < (height - 1) * bytesPerRow + used {
            throw GeneratorError.output(
                "the model gave \(rows.count) bytes in rows of \(bytesPerRow), which hold no \(width) x \(height) pixels "
                    + "of \(format.bytes) bytes")
        }
        let channels = format == .gray ? 1 : 3
        var pixels: [UInt8] = []
        pixels.reserveCapacity(width * height * channels)
        for start in stride(from: 0, to: height * bytesPerRow, by: bytesPerRow) {
            let row = rows[start..<start + used]
            switch format {
            case .gray: pixels += row
            case .bgra:
                for at in stride(from: start, to: start + used, by: format.bytes) {
                    pixels += [row[at + 2], row[at + 1], row[at]]
                }
            }
        }
        self.init([1, height, width, channels], .uint8(pixels))
    }
}
