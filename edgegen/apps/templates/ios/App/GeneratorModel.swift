import EdgegenCore
import EdgegenRuntime
import Foundation
import Observation
import UIKit

/// A picture on the screen, and how it was made.
struct MadePicture: Identifiable {
    let id = UUID()
    let picture: Picture
    let recipe: Recipe
    let milliseconds: Double
}

/// What the screen shows, and what its controls do.
@MainActor
@Observable
final class GeneratorModel {
    static let artifactFile = {{artifact_quoted}}
    static let picturesOfAGrid = 9

    private(set) var artifact: Artifact?
    private(set) var classNames: [String] = []
    private(set) var pictures: [MadePicture] = []
    private(set) var isBusy = false
    private(set) var failure: String?
    private(set) var timing: String?
    private(set) var selfTest: SelfTest?

    var seed: UInt64 = 1
    var label = 0
    var units = ComputeUnits.allCases[0]
    var photo: Picture?

    private var bundle: ModelBundle?
    private var generator: Generator?
    private var log: LatencyLog?

    /// Loads the model on the chosen compute units; in debug builds the golden images are made first.
    func load() async {
        await working {
            let bundle = try ModelBundle(folder: Self.folder)
            let artifact = try bundle.manifest.artifact(Self.artifactFile)
            let began = ContinuousClock.now
            let units = units
            let runtimes = Runtimes { file in try await DeviceRuntime.open(file, bundle, artifact, units: units) }
            let generator = try Generator(artifact, runtimes: runtimes)
            let first = artifact.files[0]
            let about = try await runtimes.runtime(of: first).about
            var log = LatencyLog(artifact, edgegen: bundle.manifest.tools.edgegen, runtime: about)
            log.loaded(first, Self.milliseconds(since: began))
            if artifact.input(.image) == nil {  // the first picture is the slowest: nobody waits for it yet
                let label = artifact.classes > 0 ? 0 : nil
                let file = try await generator.prepare(label: label)
                let warming = ContinuousClock.now
                _ = try await generator.generate(seed: 0, label: label)
                log.add(file, Self.milliseconds(since: warming))
            }
            try Task.checkCancellation()  // other units were chosen meanwhile
            (self.bundle, self.artifact, self.generator, self.log) = (bundle, artifact, generator, log)
            classNames = bundle.manifest.classNames
            #if DEBUG
                let result = try await SelfTest.run(bundle, generator)
                selfTest = result
                if !result.passed { throw GeneratorError.output("\(result)") }
            #endif
        }
    }

    /// A grid of pictures of one seed after the other.
    func makeGrid() async {
        await working {
            guard let bundle, let artifact, let generator else { return }
            pictures = []
            let photo = photo
            let inputs = photo.map { given in [artifact.input(.image)?.name ?? "image": SHA256Digest.hex(Data(given.pixels))] }
            let takesNoise = artifact.input(.noise) != nil
            let label = artifact.classes > 0 ? label : nil
            let opening = ContinuousClock.now
            let file = try await generator.prepare(label: label)
            log?.loaded(file, Self.milliseconds(since: opening))
            for number in 0..<UInt64(takesNoise ? Self.picturesOfAGrid : 1) {
                let began = ContinuousClock.now
                let picture = try await generator.generate(seed: seed &+ number, label: label, image: photo)
                let milliseconds = Self.milliseconds(since: began)
                log?.add(file, milliseconds)
                let recipe = Recipe(
                    artifactSha256: file.sha256, seed: seed &+ number, label: label,
                    edgegen: bundle.manifest.tools.edgegen, inputs: inputs ?? [:])
                pictures.append(MadePicture(picture: picture, recipe: recipe, milliseconds: milliseconds))
            }
            let sorted = pictures.map(\.milliseconds).sorted()
            timing = String(format: "%.1f ms a picture (median of %d)", sorted[sorted.count / 2], sorted.count)
            try saveLog()
        }
    }

    /// A PNG with the recipe inside, for sharing.
    func png(of made: MadePicture) throws -> URL {
        let name = "{{identifier}}-\(made.recipe.seed).png"
        let place = FileManager.default.temporaryDirectory.appendingPathComponent(name)
        try PNG.encode(made.picture, recipe: made.recipe).write(to: place, options: .atomic)
        return place
    }

    private func saveLog() throws {
        let target = ["model": UIDevice.current.model, "os": "iOS \(UIDevice.current.systemVersion)"]
        guard let content = try log?.json(target: target, selfTest: selfTest) else { return }
        try content.write(to: URL.documentsDirectory.appendingPathComponent("latency.json"), options: .atomic)
    }

    private func working(_ work: () async throws -> Void) async {
        isBusy = true
        failure = nil
        do {
            try await work()
        } catch is CancellationError {  // nobody waits for it any more
        } catch {
            failure = error.localizedDescription
        }
        isBusy = false
    }

    private static var folder: URL {
        (Bundle.main.resourceURL ?? Bundle.main.bundleURL).appendingPathComponent("bundle")
    }

    private static func milliseconds(since start: ContinuousClock.Instant) -> Double {
        let duration = start.duration(to: .now).components
        return Double(duration.seconds) * 1e3 + Double(duration.attoseconds) / 1e15
    }
}
