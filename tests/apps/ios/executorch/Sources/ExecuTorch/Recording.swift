import Foundation

/// What a real runtime answered, in the folder `session` beside the bundle, or of several students in folders in it with
/// their names: inputs by position, and no two calls at once.
final class Recording {
    struct Failure: LocalizedError {
        let errorDescription: String?
    }

    private struct Session: Decodable {
        struct Call: Decodable {
            let inputs: [String: String]
            let output: String
        }
        let method: String
        let order: [String]
        let shape: [Int]
        let calls: [Call]
    }

    private let folder: URL
    private let file: URL
    private var isBusy = false

    init(file: URL) {
        self.file = file
        let session = file.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("session")
        let own = session.appendingPathComponent(file.lastPathComponent)
        folder = FileManager.default.fileExists(atPath: own.path) ? own : session
    }

    func check(_ method: String) throws {
        if !FileManager.default.fileExists(atPath: file.path) { throw Failure(errorDescription: "no file \(file.path)") }
        let recorded = try session().method
        if method != recorded { throw Failure(errorDescription: "no method \(method); there is \(recorded)") }
    }

    func answer(to inputs: [Value]) throws -> Value {
        precondition(!isBusy, "a module is not to be called by two threads")
        isBusy = true
        Calls.add(1)
        defer {
            isBusy = false
            Calls.add(-1)
        }
        Thread.sleep(forTimeInterval: 0.05)
        let session = try session()
        for call in session.calls where try inputs.map(\.bytes) == session.order.map({ try content(call.inputs[$0]!) }) {
            let output = [UInt8](try content(call.output))
            return Value(Tensor(output, shape: session.shape))
        }
        throw Failure(errorDescription: "these inputs were never recorded")
    }

    private func session() throws -> Session {
        try JSONDecoder().decode(Session.self, from: content("session.json"))
    }

    private func content(_ name: String) throws -> Data {
        try Data(contentsOf: folder.appendingPathComponent(name))
    }
}

/// Calls of all modules that run now, and the most that ever did.
private enum Calls {
    private static let lock = NSLock()
    nonisolated(unsafe) private static var running = 0
    nonisolated(unsafe) static var most = 0

    static func add(_ number: Int) {
        lock.withLock {
            running += number
            most = max(most, running)
        }
    }
}

public func mostCallsAtOnce() -> Int { Calls.most }
