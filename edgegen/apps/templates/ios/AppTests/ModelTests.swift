import EdgegenCore
import EdgegenRuntime
import Foundation
import XCTest

/// On a device or in the simulator, inside of the app: `xcodebuild test -scheme {{identifier}} -destination ...`.
final class ModelTests: XCTestCase {
    private func opened(_ units: ComputeUnits) async throws -> (ModelBundle, Generator) {
        let resources = try XCTUnwrap(Bundle.main.resourceURL)
        let bundle = try ModelBundle(folder: resources.appendingPathComponent("bundle"))
        let artifact = try bundle.manifest.artifact({{artifact_quoted}})
        let runtimes = Runtimes { file in try await DeviceRuntime.open(file, bundle, artifact, units: units) }
        return (bundle, try Generator(artifact, runtimes: runtimes))
    }

    func testGoldenImagesOnEveryComputeUnit() async throws {
        for units in ComputeUnits.allCases {
            let (bundle, generator) = try await opened(units)
            let result = try await SelfTest.run(bundle, generator)
            XCTAssertTrue(result.passed, "\(units.name): \(result)")
        }
    }

    func testTimeOfTheGoldenImages() async throws {
        let (bundle, generator) = try await opened(ComputeUnits.allCases[0])
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
