import Foundation

/// How near a device comes to the golden images of an artifact: `psnrDb` of every image, against `floorDb`.
public struct SelfTest: Sendable, CustomStringConvertible {
    public let file: String
    public let floorDb: Double
    public let psnrDb: [Double]

    public var passed: Bool { psnrDb.allSatisfy { $0 >= floorDb } }

    public var worstDb: Double { psnrDb.min() ?? .infinity }

    public var description: String {
        let failed = psnrDb.count { $0 < floorDb }
        let nearest = worstDb.isInfinite ? "equal to the last bit" : String(format: "%.1f dB at worst", worstDb)
        let verdict = passed ? "passed" : "FAILED, \(failed) pictures are below"
        return "self-test \(verdict): \(psnrDb.count) pictures of \(file), \(nearest), floor \(floorDb) dB"
    }

    /// Makes every golden image again.
    ///
    /// - Throws: ``GeneratorError`` where a picture cannot be made at all
    public static func run(_ bundle: ModelBundle, _ generator: Generator) async throws -> SelfTest {
        let artifact = generator.artifact
        let expected = try bundle.goldenImages(artifact)
        let given = try artifact.input(.image).map(bundle.goldenInputs)
        var psnr: [Double] = []
        for (at, sample) in bundle.manifest.golden.samples.enumerated() {
            let picture = try await generator.generate(
                seed: sample.seed, label: sample.label, image: given?[at], index: sample.index)
            if picture.width != expected[at].width || picture.pixels.count != expected[at].pixels.count {
                throw GeneratorError.output(
                    "\(picture.width) x \(picture.height) pixels, and the golden image has others")
            }
            psnr.append(picture.psnr(expected[at]))
        }
        return SelfTest(file: artifact.file, floorDb: artifact.golden.floorDb, psnrDb: psnr)
    }
}
