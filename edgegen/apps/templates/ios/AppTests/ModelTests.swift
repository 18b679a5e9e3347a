import CoreML
import EdgegenCore
import EdgegenCoreML
import Foundation
import XCTest

/// On a device or in the simulator, inside of the app: `xcodebuild test -scheme {{identifier}} -destination ...`.
final class ModelTests: XCTestCase {
    private func opened(_ units: MLComputeUnits) async throws -> (ModelBundle, Generator) {
        let resources = try XCTUnwrap(Bundle.main.resourceURL)
        let bundle = try ModelBundle(folder: resources.appendingPathComponent("bundle"))
        let artifact = try bundle.manifest.artifact({{artifact_quoted}})
        let runtime = try await CoreMLRuntime.open(bundle, artifact, units: units)
        return (bundle, try Generator(artifact, runtime: runtime))
    }

    func testGoldenImagesOnEveryComputeUnit() async throws {
        for units in [MLComputeUnits.cpuOnly, .cpuAndGPU, .cpuAndNeuralEngine, .all] {
            let (bundle, generator) = try await opened(units)
            let result = try await SelfTest.run(bundle, generator)
            XCTAssertTrue(result.passed, "\(units.name): \(result)")
        }
    }

    func testTimeOfTheGoldenImages() async throws {
        let (bundle, generator) = try await opened(.all)
        _ = try await SelfTest.run(bundle, generator)  // the first pictures are slower
        let options = XCTMeasureOptions()
        options.invocationOptions = [.manuallyStart, .manuallyStop]
        measure(metrics: [XCTClockMetric(), XCTMemoryMetric()], options: options) {
            let done = expectation(description: "pictures")
            startMeasuring()
            Task {
                _ = try await SelfTest.run(bundle, generator)
                done.fulfill()
            }
            wait(for: [done], timeout: 60)
            stopMeasuring()
        }
    }
}
