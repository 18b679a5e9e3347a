import Foundation

/// Writes PNG files (ISO/IEC 15948), not compressed: ImageIO's have no place for a recipe.
public enum PNG {
    private static let signature: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
    private static let largestBlock = 65_535

    /// The file, with the recipe in a text chunk (iTXt) before the pixels.
    public static func encode(_ picture: Picture, recipe: Recipe) throws -> Data {
        // 8 bits; gray is colour type 0, RGB 2; deflate, filters by line, not interlaced
        let header = word(picture.width) + word(picture.height) + [8, picture.channels == 3 ? 2 : 0, 0, 0, 0]
        // Not packed; no language and no translated keyword
        let text = Array("edgegen".utf8) + [0, 0, 0, 0, 0] + Array(try recipe.json)
        let line = picture.width * picture.channels
        let lines = (0..<picture.height).flatMap { [0] + picture.pixels[$0 * line..<($0 + 1) * line] }
        let parts = [chunk("IHDR", header), chunk("iTXt", text), chunk("IDAT", stored(lines)), chunk("IEND", [])]
        return Data(signature + parts.joined())
    }

    private static func chunk(_ type: String, _ content: [UInt8]) -> [UInt8] {
        let named = Array(type.utf8) + content
        return word(content.count) + named + word(Int(crc32(named)))
    }

    /// A zlib stream (RFC 1950) of blocks that are not compressed (RFC 1951, section 3.2.4).
    private static func stored(_ bytes: [UInt8]) -> [UInt8] {
        var stream: [UInt8] = [0x78, 0x01]
        for start in stride(from: 0, to: bytes.count, by: largestBlock) {
            let part = bytes[start..<min(start + largestBlock, bytes.count)]
            let count = UInt16(part.count)
            stream.append(start + part.count == bytes.count ? 1 : 0)
            for number in [count, ~count] { stream += [UInt8(number & 0xFF), UInt8(number >> 8)] }
            stream += part
        }
        return stream + word(Int(adler32(bytes)))
    }

    private static func adler32(_ bytes: [UInt8]) -> UInt32 {
        var (low, high): (UInt32, UInt32) = (1, 0)
        for byte in bytes {
            low = (low + UInt32(byte)) % 65_521
            high = (high + low) % 65_521
        }
        return high << 16 | low
    }

    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 1 ? 0xEDB8_8320 ^ crc >> 1 : crc >> 1 }
    }

    private static func crc32(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~0) { crc, byte in table[Int((crc ^ UInt32(byte)) & 0xFF)] ^ crc >> 8 }
    }

    private static func word(_ number: Int) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    }
}
