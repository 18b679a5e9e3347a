/// The open files of an artifact: a student is opened when one of its classes is made, and closed for another one unless
/// they are small. A file that a call still uses is closed when that call has ended.
public actor Runtimes {
    public static let small = 64_000_000

    private let room: Int
    private let open: @Sendable (ModelFile) async throws -> any ModelRuntime
    private var opened: [(file: ModelFile, runtime: Task<any ModelRuntime, any Error>)] = []  // the last was used last

    /// - Parameters:
    ///   - room: bytes of files that stay open together
    ///   - open: opens one file; it is called once for a file that is open
    public init(room: Int = Runtimes.small, open: @escaping @Sendable (ModelFile) async throws -> any ModelRuntime) {
        self.room = room
        self.open = open
    }

    /// Calls that come while a file is being opened get the same runtime.
    ///
    /// - Throws: what `open` throws; the next call tries again
    public func runtime(of file: ModelFile) async throws -> any ModelRuntime {
        let runtime = used(file) ?? begun(file)
        do {
            return try await runtime.value
        } catch {
            opened.removeAll { $0.runtime == runtime }
            throw error
        }
    }

    private func used(_ file: ModelFile) -> Task<any ModelRuntime, any Error>? {
        guard let at = opened.firstIndex(where: { $0.file == file }) else { return nil }
        opened.append(opened.remove(at: at))
        return opened.last?.runtime
    }

    private func begun(_ file: ModelFile) -> Task<any ModelRuntime, any Error> {
        while !opened.isEmpty, opened.reduce(file.nbytes, { $0 + $1.file.nbytes }) > room { opened.removeFirst() }
        let runtime = Task { [open] in try await open(file) }
        opened.append((file, runtime))
        return runtime
    }
}
