import EdgegenCore
import UIKit

extension Picture {
    /// For the screen.
    var cgImage: CGImage? {
        guard let provider = CGDataProvider(data: Data(rgba) as CFData) else { return nil }
        return CGImage(
            width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width,
            space: CGColorSpace(name: CGColorSpace.sRGB) ?? CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue), provider: provider, decode: nil,
            shouldInterpolate: false, intent: .defaultIntent)
    }

    /// The middle of a photo, scaled to the size that a model takes.
    init?(_ image: UIImage, channels: Int, height: Int, width: Int) {
        let scale = max(CGFloat(width) / image.size.width, CGFloat(height) / image.size.height)
        let size = CGSize(width: image.size.width * scale, height: image.size.height * scale)
        let format = UIGraphicsImageRendererFormat()
        (format.scale, format.opaque, format.preferredRange) = (1, true, .standard)
        let drawn = UIGraphicsImageRenderer(size: CGSize(width: width, height: height), format: format).image { _ in
            let origin = CGPoint(x: (CGFloat(width) - size.width) / 2, y: (CGFloat(height) - size.height) / 2)
            image.draw(in: CGRect(origin: origin, size: size))
        }
        var bytes = [UInt8](repeating: 0, count: 4 * width * height)
        let isDrawn = bytes.withUnsafeMutableBytes { memory in
            guard let source = drawn.cgImage, let space = CGColorSpace(name: CGColorSpace.sRGB),
                let context = CGContext(
                    data: memory.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
                    space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            else { return false }
            context.draw(source, in: CGRect(x: 0, y: 0, width: width, height: height))
            return true
        }
        if !isDrawn { return nil }
        self.init(width: width, height: height, channels: channels, rgba: bytes)
    }
}
