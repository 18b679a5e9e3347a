import Foundation

/// The latencies of one start of an app in edgegen's schema "edgegen.profile/1"; `edgegen report FILE` reads it.
///
/// They are marked as noisy: an app in use shares its device, and nothing was repeated until a median settled.
public struct LatencyLog: Sendable {
    private static let longest = 1000 // pictures that are remembered: the newest

    private let artifact: Artifact
    private let edgegen: String
    private let runtime: String
    private var times: [Times] = []  // several students have one each

    private struct Times {
        let file: ModelFile
        let loadMs: Double?
        var firstMs: Double?  // it is not among the others
        var runsMs: [Double] = []
    }

    public init(_ artifact: Artifact, edgegen: String, runtime: String) {
        self.artifact = artifact
        self.edgegen = edgegen
        self.runtime = runtime
    }

    /// Notes how long it took until a file of the artifact could be run; the first time counts.
    public mutating func loaded(_ file: ModelFile, _ milliseconds: Double?) {
        if !times.contains(where: { $0.file == file }) { times.append(Times(file: file, loadMs: milliseconds)) }
    }

    /// Adds the time of one picture that a file made.
    public mutating func add(_ file: ModelFile, _ milliseconds: Double) {
        precondition(milliseconds > 0, "a picture in \(milliseconds) ms")
        loaded(file, nil)
        for at in times.indices where times[at].file == file {
            if times[at].firstMs == nil {
                times[at].firstMs = milliseconds
            } else {
                times[at].runsMs = times[at].runsMs.suffix(Self.longest - 1) + [milliseconds]
            }
        }
    }

    /// The file, nil until the second picture.
    ///
    /// - Parameters:
    ///   - target: what is known of the device: "cpu", "os", "model"
    ///   - selfTest: of this artifact on this device, where it ran; a failed one has no latency
    public func json(target: [String: String], selfTest: SelfTest?, now: Date = Date()) throws -> Data? {
        let measured = times.filter { !$0.runsMs.isEmpty }
        if measured.isEmpty { return nil }
        let log: [String: Any] = [
            "schema": "edgegen.profile/1",
            "created": ISO8601DateFormatter().string(from: now),
            "tool": "edgegen \(edgegen), latency log of an app",
            "device": "ios",
            "target": target,
            "profile": "quick",
            "others_cores": NSNull(),
            "stolen_cores": NSNull(),
            "results": measured.map { result($0, selfTest) },
        ]
        return try JSONSerialization.data(withJSONObject: log, options: [.prettyPrinted, .sortedKeys])
    }

    private func result(_ times: Times, _ selfTest: SelfTest?) -> [String: Any] {
        let failed = selfTest.map { !$0.passed } ?? false
        let reason = failed ? "\(selfTest!)" : "an app in use, not edgegen's protocol of measuring"
        let cold = times.loadMs.map { [["load_ms": $0, "first_ms": times.firstMs!]] } ?? []
        return [
            "artifact": facts(times.file),
            "config": ["runtime": runtime, "threads_requested": 0, "threads_actual": NSNull()] as [String: Any],
            "numerics": numerics(selfTest),
            "cold": cold,
            "latency": failed ? NSNull() : Self.latency(times.runsMs),
            "verdict": ["status": failed ? "failed" : "noisy", "reasons": [reason]] as [String: Any],
        ]
    }

    private func facts(_ file: ModelFile) -> [String: Any] {
        [
            "name": file.name,
            "format": (file.name as NSString).pathExtension,
            "sha256": file.sha256,
            "nbytes": file.nbytes,
            "scheme": artifact.scheme,
            "inputs": artifact.inputs.map {
                ["name": $0.name, "dtype": $0.dtype.rawValue, "shape": $0.shape] as [String: Any]
            },
        ]
    }

    private func numerics(_ selfTest: SelfTest?) -> [String: Any] {
        [
            "reference": selfTest == nil ? NSNull() : "golden images of the bundle",
            "snr_db": NSNull(),
            "max_abs": NSNull(),
            "passed": selfTest.map { $0.passed as Any } ?? NSNull(),
            "reason": selfTest?.description ?? "the self-test did not run",
        ]
    }

    /// All runs are one block, of which the bootstrap over blocks gives the median itself as both ends.
    private static func latency(_ runsMs: [Double]) -> [String: Any] {
        let sorted = runsMs.sorted()
        let median = quantile(sorted, 0.5)
        return [
            "blocks_ms": [runsMs],
            "runs": sorted.count,
            "p50_ms": median,
            "p50_ci95_ms": [median, median],
            "p90_ms": quantile(sorted, 0.9),
            "min_ms": sorted[0],
            "mean_ms": sorted.reduce(0, +) / Double(sorted.count),
            "converged": false,
        ]
    }

    /// Linear between the two nearest ranks, as numpy does.
    private static func quantile(_ sorted: [Double], _ share: Double) -> Double {
        let position = share * Double(sorted.count - 1)
        let below = Int(position)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (position - Double(below)) * (sorted[above] - sorted[below])
    }
}
