import Foundation
import XCTest

@testable import EdgegenCore

/// Answers as a real runtime answered the same inputs, bit by bit; other inputs were never recorded.
private final class Recorded: ModelRuntime {
    private struct Session: Decodable {
        struct Call: Decodable {
            let inputs: [String: String]
            let output: String
        }
        let calls: [Call]
    }

    let about = "recorded"
    private let folder: URL
    private let calls: [Session.Call]

    init(_ folder: URL) throws {
        self.folder = folder
        let content = try Data(contentsOf: folder.appendingPathComponent("session.json"))
        calls = try JSONDecoder().decode(Session.self, from: content).calls
    }

    func run(_ method: EdgegenCore.Method, inputs: [String: Tensor]) throws -> Tensor {
        let given = inputs.mapValues(Self.bytes)
        for call in calls {
            XCTAssertEqual(Set(call.inputs.keys), Set(inputs.keys))
            let recorded = try call.inputs.mapValues { try Data(contentsOf: folder.appendingPathComponent($0)) }
            if recorded == given {
                let content = try Data(contentsOf: folder.appendingPathComponent(call.output))
                return Tensor(method.output.shape, Self.values(content, method.output.dtype))
            }
        }
        throw GeneratorError.inference("these inputs were never recorded")
    }

    private static func bytes(_ tensor: Tensor) -> Data {
        switch tensor.values {
        case let .float32(numbers): numbers.withUnsafeBytes { Data($0) }
        case let .int64(numbers): numbers.withUnsafeBytes { Data($0) }
        case let .int32(numbers): numbers.withUnsafeBytes { Data($0) }
        case let .uint8(numbers): Data(numbers)
        }
    }

    private static func values(_ content: Data, _ type: ElementType) -> Tensor.Values {
        if type == .uint8 { return .uint8([UInt8](content)) }
        return .float32(content.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) })
    }
}

final class ReplayTests: XCTestCase {
    private let session = AppBundle.folder.deletingLastPathComponent().appendingPathComponent("session")

    /// Of several students each has a recording of its own, in a folder with its name.
    private func generator(of artifact: Artifact) throws -> Generator {
        let (session, hasStudents) = (session, artifact.students != nil)
        return try Generator(
            artifact, runtimes: Runtimes { try Recorded(hasStudents ? session.appendingPathComponent($0.name) : session) })
    }

    func testTheGoldenImagesAreMadeFromTheirSeeds() async throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        let artifact = try bundle.manifest.artifact(AppBundle.artifact)
        let generator = try generator(of: artifact)
        let result = try await SelfTest.run(bundle, generator)
        XCTAssertTrue(result.passed, "\(result)")

        let edgegen = bundle.manifest.tools.edgegen
        var log = LatencyLog(artifact, edgegen: edgegen, runtime: "recorded")
        log.loaded(artifact.files[0], 1)
        let given = try artifact.input(.image).map(bundle.goldenInputs)
        for (at, sample) in bundle.manifest.golden.samples.enumerated() {
            let began = Date()
            let picture = try await generator.generate(
                seed: sample.seed, label: sample.label, image: given?[at], index: sample.index)
            let file = try artifact.file(of: sample.label)
            log.add(file, max(Date().timeIntervalSince(began) * 1000, 1e-3))
            let inputs = given.map { ["photo": SHA256Digest.hex(Data($0[at].pixels))] } ?? [:]
            let recipe = Recipe(
                artifactSha256: file.sha256, seed: sample.seed, label: sample.label, edgegen: edgegen, inputs: inputs)
            try PNG.encode(picture, recipe: recipe).write(to: session.appendingPathComponent("\(at).png"))
        }
        let json = try XCTUnwrap(log.json(target: ["cpu": "a processor", "os": "Linux"], selfTest: result))
        try json.write(to: session.appendingPathComponent("latency.json"))
    }

    func testOtherPicturesFailTheSelfTest() async throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        let artifact = try bundle.manifest.artifact(AppBundle.artifact)
        let golden = try bundle.goldenImages(artifact)
        let wrong = SelfTest(
            file: artifact.file, floorDb: artifact.golden.floorDb, psnrDb: zip(golden, golden.dropFirst()).map { $0.psnr($1) })
        XCTAssertFalse(wrong.passed)
        XCTAssertTrue("\(wrong)".contains("FAILED"))
    }

    func testOtherInputsAreNoneOfTheRecording() async throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        let artifact = try bundle.manifest.artifact(AppBundle.artifact)
        if artifact.input(.noise) == nil { return }
        let generator = try generator(of: artifact)
        do {
            _ = try await generator.generate(seed: 987_654_321, label: artifact.classes > 0 ? 0 : nil)
            XCTFail("no error")
        } catch {
            XCTAssertEqual(error as? GeneratorError, .inference("these inputs were never recorded"))
        }
    }
}
