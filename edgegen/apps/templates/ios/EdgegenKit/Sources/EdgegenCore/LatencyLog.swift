import Foundation

/// The latencies of one start of an app in edgegen's schema "edgegen.profile/1"; `edgegen report FILE` reads it.
///
/// They are marked as noisy: an app in use shares its device, and nothing was repeated until a median settled.
public struct LatencyLog: Sendable {
    private static let longest = 1000 // pictures that are remembered: the newest

    private let artifact: Artifact
    private let edgegen: String
    private let runtime: String
    private var runsMs: [Double] = []

    /// From the start of loading until the model can be run.
    public var loadMs: Double?
    /// Of the first picture after that; it is not among the others.
    public private(set) var firstMs: Double?

    public init(_ artifact: Artifact, edgegen: String, runtime: String) {
        self.artifact = artifact
        self.edgegen = edgegen
        self.runtime = runtime
    }

    /// Adds the time of one picture.
    public mutating func add(_ milliseconds: Double) {
        precondition(milliseconds > 0, "a picture in \(milliseconds) ms")
        if firstMs == nil {
            firstMs = milliseconds
        } else {
            runsMs = runsMs.suffix(Self.longest - 1) + [milliseconds]
        }
    }

    /// The file, nil until the second picture.
    ///
    /// - Parameters:
    ///   - target: what is known of the device: "cpu", "os", "model"
    ///   - selfTest: of this artifact on this device, where it ran; a failed one has no latency
    public func json(target: [String: String], selfTest: SelfTest?, now: Date = Date()) throws -> Data? {
        if runsMs.isEmpty { return nil }
        let failed = selfTest.map { !$0.passed } ?? false
        let reason = failed ? "\(selfTest!)" : "an app in use, not edgegen's protocol of measuring"
        let result: [String: Any] = [
            "artifact": facts,
            "config": ["runtime": runtime, "threads_requested": 0, "threads_actual": NSNull()] as [String: Any],
            "numerics": numerics(selfTest),
            "cold": cold,
            "latency": failed ? NSNull() : latency,
            "verdict": ["status": failed ? "failed" : "noisy", "reasons": [reason]] as [String: Any],
        ]
        let log: [String: Any] = [
            "schema": "edgegen.profile/1",
            "created": ISO8601DateFormatter().string(from: now),
            "tool": "edgegen \(edgegen), latency log of an app",
            "device": "ios",
            "target": target,
            "profile": "quick",
            "others_cores": NSNull(),
            "stolen_cores": NSNull(),
            "results": [result],
        ]
        return try JSONSerialization.data(withJSONObject: log, options: [.prettyPrinted, .sortedKeys])
    }

    private var facts: [String: Any] {
        [
            "name": artifact.file,
            "format": (artifact.file as NSString).pathExtension,
            "sha256": artifact.sha256,
            "nbytes": artifact.nbytes,
            "scheme": artifact.scheme,
            "inputs": artifact.inputs.map {
                ["name": $0.name, "dtype": $0.dtype.rawValue, "shape": $0.shape] as [String: Any]
            },
        ]
    }

    private var cold: [[String: Double]] {
        guard let loadMs, let firstMs else { return [] }
        return [["load_ms": loadMs, "first_ms": firstMs]]
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
    private var latency: [String: Any] {
        let sorted = runsMs.sorted()
        let median = Self.quantile(sorted, 0.5)
        return [
            "blocks_ms": [runsMs],
            "runs": sorted.count,
            "p50_ms": median,
            "p50_ci95_ms": [median, median],
            "p90_ms": Self.quantile(sorted, 0.9),
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
