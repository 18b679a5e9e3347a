import EdgegenCore
import EdgegenRuntime
import ExecuTorch
import Foundation
import XCTest

/// The ExecuTorch side of a project over a module that answers what was recorded.
final class RuntimeTests: XCTestCase {
    private let folder = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("bundle")

    private func opened() async throws -> (ModelBundle, Generator) {
        let bundle = try ModelBundle(folder: folder)
        let artifact = try XCTUnwrap(bundle.manifest.artifacts.first { $0.runtime == "executorch" })
        return (bundle, try Generator(artifact, runtimes: Runtimes { try await DeviceRuntime.open($0, bundle, artifact) }))
    }

    func testTheGoldenImagesAreMade() async throws {
        let (bundle, generator) = try await opened()
        let result = try await SelfTest.run(bundle, generator)
        XCTAssertEqual(result.worstDb, .infinity, "\(result)")
        let artifact = generator.artifact
        let about = try await DeviceRuntime.open(artifact.files[0], bundle, artifact).about
        XCTAssertTrue(about.hasPrefix("ExecuTorch on "), about)
    }

    /// The stub traps where two calls of one module meet.
    func testCallsOfOneGeneratorWaitForEachOther() async throws {
        let (bundle, generator) = try await opened()
        let pictures = try await pictures(of: bundle, Array(repeating: generator, count: 8))
        XCTAssertEqual(pictures.count, 8)
        XCTAssertEqual(Set(pictures.map(\.pixels)).count, 1)
    }

    /// Swift's pool has a thread for each core: where more calls run at once, none is there.
    func testCallsBlockNoThreadOfSwiftsPool() async throws {
        let cores = ProcessInfo.processInfo.activeProcessorCount
        var generators: [Generator] = []
        for _ in 0..<cores + 4 { generators.append(try await opened().1) }
        _ = try await pictures(of: ModelBundle(folder: folder), generators)
        XCTAssertGreaterThan(mostCallsAtOnce(), cores)
    }

    private func pictures(of bundle: ModelBundle, _ generators: [Generator]) async throws -> [Picture] {
        let sample = bundle.manifest.golden.samples[0]
        return try await withThrowingTaskGroup(of: Picture.self) { group in
            for generator in generators {
                group.addTask {
                    try await generator.generate(seed: sample.seed, label: sample.label, index: sample.index)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }

    func testWhatExecuTorchSaysIsInTheError() async throws {
        let (_, generator) = try await opened()
        do {
            _ = try await generator.generate(seed: 987_654_321, label: 0)
            XCTFail("no error")
        } catch {
            XCTAssertEqual(
                error as? GeneratorError, .inference("ExecuTorch cannot run the model: these inputs were never recorded"))
        }
    }

    func testACancelledTaskRunsNothing() async throws {
        let (_, generator) = try await opened()
        let picture = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await generator.generate(seed: 987_654_321, label: 0)
        }
        do {
            _ = try await picture.value
            XCTFail("no error")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
    }
}
