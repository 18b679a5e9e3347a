import Foundation
import XCTest

@testable import EdgegenCore

/// Gives one value everywhere.
private struct Constant: ModelRuntime {
    let about = "constant"
    let value: Float

    init(_ value: Float) { self.value = value }

    func run(_ method: EdgegenCore.Method, inputs: [String: Tensor]) throws -> Tensor {
        let shape = method.output.shape
        let count = shape.reduce(1, *)
        if method.output.dtype == .uint8 { return Tensor(shape, .uint8([UInt8](repeating: UInt8(value), count: count))) }
        return Tensor(shape, .float32([Float](repeating: value, count: count)))
    }
}

final class NoiseTests: XCTestCase {
    /// Random123's known answers for Philox4x32-10.
    func testPhilox() {
        let zero = Noise.philox4x32((0, 0, 0, 0), key: (0, 0))
        XCTAssertEqual([zero.0, zero.1, zero.2, zero.3], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])
        let ones = Noise.philox4x32((.max, .max, .max, .max), key: (.max, .max))
        XCTAssertEqual([ones.0, ones.1, ones.2, ones.3], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd])
    }

    func testASampleDependsOnNoOther() {
        let both = Noise.normal(seed: 7, first: 0, count: 2, size: 5)
        XCTAssertEqual(Array(both[5...]), Noise.normal(seed: 7, first: 1, count: 1, size: 5))
    }
}

final class BundleTests: XCTestCase {
    private var copy: URL!

    override func setUpWithError() throws {
        copy = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.copyItem(at: AppBundle.folder, to: copy)
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: copy) }

    func testTheFilesOfThisAppAreAsWritten() throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        let artifact = try bundle.manifest.artifact(AppBundle.artifact)
        for file in artifact.files { XCTAssertNoThrow(try bundle.checkedPlace(of: file)) }
        XCTAssertEqual(try bundle.goldenImages(artifact).count, bundle.manifest.golden.samples.count)
    }

    func testAChangedFileIsRefusedByItsName() throws {
        let bundle = try ModelBundle(folder: copy)
        let path = try bundle.manifest.artifact(AppBundle.artifact).golden.file
        var content = try Data(contentsOf: copy.appendingPathComponent(path))
        content[0] ^= 1
        try content.write(to: copy.appendingPathComponent(path))
        XCTAssertThrowsError(try bundle.read(path)) { error in
            guard case let .hash(file, _, _)? = error as? GeneratorError else { return XCTFail("\(error)") }
            XCTAssertEqual(file, path)
        }
    }

    func testAMissingFileAndAChangedManifestAreRefused() throws {
        let bundle = try ModelBundle(folder: copy)
        XCTAssertThrowsError(try bundle.read("no such file")) { XCTAssertTrue("\($0)".contains("no such file")) }
        let place = copy.appendingPathComponent("manifest.json")
        try (Data(contentsOf: place) + Data(" ".utf8)).write(to: place)
        XCTAssertThrowsError(try ModelBundle(folder: copy)) { error in
            guard case .hash("manifest.json", _, _)? = error as? GeneratorError else { return XCTFail("\(error)") }
        }
    }

    func testAManifestNamesTheKeyThatIsWrong() throws {
        let content = try Data(contentsOf: copy.appendingPathComponent("manifest.json"))
        let values = try XCTUnwrap(JSONSerialization.jsonObject(with: content) as? [String: Any])
        for (key, value, said) in [
            ("schema", "edgegen.bundle/9", "its schema is edgegen.bundle/9"), ("golden", nil, "golden: is missing"),
            ("artifacts", [] as [Any], "artifacts: is empty"), ("files", [] as [Any], "files: has no"), ("name", 3, "name: "),
        ] as [(String, Any?, String)] {
            var changed = values
            changed[key] = value
            let text = try JSONSerialization.data(withJSONObject: changed)
            XCTAssertThrowsError(try Manifest.parse(text), key) { error in
                XCTAssertTrue(error.localizedDescription.contains(said), "\(error)")
            }
        }
        XCTAssertThrowsError(try Manifest.parse(Data("no".utf8))) { XCTAssertTrue("\($0)".contains("is no JSON"), "\($0)") }
    }

    /// FIPS 180-4's examples, and a length at which the padding needs a block of its own.
    func testSHA256() {
        XCTAssertEqual(
            SHA256Digest.hex(Data("abc".utf8)), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        XCTAssertEqual(
            SHA256Digest.hex(Data()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        XCTAssertEqual(
            SHA256Digest.hex(Data("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8)),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    }
}

final class PictureTests: XCTestCase {
    func testColoursAndGray() {
        let red = Picture(width: 1, height: 1, channels: 3, rgba: [255, 0, 0, 9])
        XCTAssertEqual(red.pixels, [255, 0, 0])
        XCTAssertEqual(red.rgba, [255, 0, 0, 255])
        XCTAssertEqual(Picture(width: 1, height: 1, channels: 1, rgba: [255, 0, 0, 9]).rgba, [76, 76, 76, 255])
    }

    func testPSNR() {
        let black = Picture(width: 2, height: 1, channels: 1, pixels: [0, 0])
        XCTAssertEqual(black.psnr(black), .infinity)
        XCTAssertEqual(black.psnr(Picture(width: 2, height: 1, channels: 1, pixels: [255, 255])), 0)
        XCTAssertEqual(black.psnr(Picture(width: 2, height: 1, channels: 1, pixels: [0, 51])), 16.9897, accuracy: 1e-4)
    }
}

final class PixelRowsTests: XCTestCase {
    /// Two rows of two pixels, each with padding, which is 99.
    func testGrayRowsWithPadding() throws {
        let tensor = try tensor([1, 2, 99, 99, 3, 4, 99, 99], bytesPerRow: 4, .gray)
        XCTAssertEqual(tensor, Tensor([1, 2, 2, 1], .uint8([1, 2, 3, 4])))
    }

    /// The last row of a buffer may end with its pixels.
    func testColoursAreInTheOrderOfAPicture() throws {
        let rows: [UInt8] = [3, 2, 1, 0, 6, 5, 4, 0, 99, 99, 99, 99, 9, 8, 7, 0, 12, 11, 10, 0]
        let tensor = try tensor(rows, bytesPerRow: 12, .bgra)
        XCTAssertEqual(tensor, Tensor([1, 2, 2, 3], .uint8([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])))
    }

    func testRowsThatDoNotHoldThePixelsAreRefused() {
        for (count, bytesPerRow) in [(19, 12), (16, 7)] {
            XCTAssertThrowsError(try tensor([UInt8](repeating: 0, count: count), bytesPerRow: bytesPerRow, .bgra)) {
                XCTAssertTrue($0.localizedDescription.contains("2 x 2 pixels of 4 bytes"), "\($0)")
            }
        }
    }

    private func tensor(_ rows: [UInt8], bytesPerRow: Int, _ format: PixelFormat) throws -> Tensor {
        try rows.withUnsafeBytes {
            try Tensor(rows: $0, bytesPerRow: bytesPerRow, width: 2, height: 2, format: format)
        }
    }
}

final class GeneratorTests: XCTestCase {
    private var artifact: Artifact!
    private var image: Picture?

    override func setUpWithError() throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        artifact = try bundle.manifest.artifact(AppBundle.artifact)
        image = try artifact.input(.image).map { try bundle.goldenInputs($0)[0] }
    }

    private var label: Int? { artifact.classes > 0 ? artifact.classes - 1 : nil }

    func testThePictureIsThatOfTheOutput() async throws {
        let output = artifact.method.output
        let generator = try Generator(artifact, runtimes: Runtimes { _ in Constant(Float(output.high)) })
        let picture = try await generator.generate(seed: 1, label: label, image: image)
        XCTAssertEqual(Set(picture.pixels), [255])
    }

    func testNotANumberIsNoPixel() async throws {
        guard artifact.method.output.dtype == .float32 else { return }
        let generator = try Generator(artifact, runtimes: Runtimes { _ in Constant(.nan) })
        await assertFails("which is no pixel") { try await generator.generate(seed: 1, label: self.label, image: self.image) }
    }

    func testWhatTheModelDoesNotTakeIsRefused() async throws {
        let generator = try Generator(artifact, runtimes: Runtimes { _ in Constant(0) })
        let (classes, image, label) = (artifact.classes, image, label)
        await assertFails("label \(classes)") { try await generator.generate(seed: 1, label: classes, image: image) }
        await assertFails("index -1") { try await generator.generate(seed: 1, label: label, image: image, index: -1) }
        if classes > 0 {
            await assertFails("label is missing") { try await generator.generate(seed: 1, image: image) }
        }
        let tiny = Picture(width: 1, height: 1, channels: 1, pixels: [0])
        await assertFails("picture") { try await generator.generate(seed: 1, label: label, image: tiny) }
    }

    private func assertFails(_ text: String, _ call: () async throws -> Picture) async {
        do {
            _ = try await call()
            XCTFail("no error that says \(text)")
        } catch {
            XCTAssertTrue(error.localizedDescription.contains(text), "\(error)")
        }
    }
}
