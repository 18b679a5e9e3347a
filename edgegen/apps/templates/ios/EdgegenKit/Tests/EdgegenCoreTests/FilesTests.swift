import Foundation
import XCTest

@testable import EdgegenCore

/// What was opened, by name, and how often.
private actor Opened {
    private(set) var names: [String] = []
    private var mistakes: Int

    init(mistakes: Int = 0) { self.mistakes = mistakes }

    func open(_ file: ModelFile) async throws -> any ModelRuntime {
        names.append(file.name)
        await Task.yield()  // others may call meanwhile
        if mistakes > 0 {
            mistakes -= 1
            throw GeneratorError.inference("does not open")
        }
        return Named(about: file.name)
    }
}

private final class Named: ModelRuntime {
    let about: String

    init(about: String) { self.about = about }

    func run(_ method: EdgegenCore.Method, inputs: [String: Tensor]) throws -> Tensor {
        throw GeneratorError.inference("\(about) runs nothing")
    }
}

final class RuntimesTests: XCTestCase {
    private let files = (0..<3).map { ModelFile(name: "\($0)", nbytes: 40, sha256: "\($0)") }

    func testLargeFilesAreOpenOneAtATimeAndSmallOnesTogether() async throws {
        let (large, small) = (Opened(), Opened())
        var runtimes = Runtimes(room: 1) { try await large.open($0) }
        for at in [0, 0, 1, 0] {
            let about = try await runtimes.runtime(of: files[at]).about
            XCTAssertEqual(about, "\(at)")
        }
        var names = await large.names
        XCTAssertEqual(names, ["0", "1", "0"])
        runtimes = Runtimes(room: 80) { try await small.open($0) }
        for at in [0, 1, 0, 2, 0, 1] { _ = try await runtimes.runtime(of: files[at]) }  // 2 takes the place of 1
        names = await small.names
        XCTAssertEqual(names, ["0", "1", "2", "1"])
    }

    func testAFileThatMakesRoomIsFreed() async throws {
        let runtimes = Runtimes(room: 1) { Named(about: $0.name) }
        weak var first = try await runtimes.runtime(of: files[0]) as? Named
        XCTAssertNotNil(first)
        _ = try await runtimes.runtime(of: files[1])
        for _ in 0..<100 where first != nil { try await Task.sleep(for: .milliseconds(20)) }
        XCTAssertNil(first)
    }

    func testCallsThatMeetOpenAFileOnce() async throws {
        let opened = Opened()
        let (runtimes, file) = (Runtimes { try await opened.open($0) }, files[0])
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<20 { group.addTask { _ = try await runtimes.runtime(of: file) } }
            try await group.waitForAll()
        }
        let names = await opened.names
        XCTAssertEqual(names, ["0"])
    }

    func testWhatDoesNotOpenIsTriedAgain() async throws {
        let opened = Opened(mistakes: 1)
        let runtimes = Runtimes { try await opened.open($0) }
        do {
            _ = try await runtimes.runtime(of: files[0])
            XCTFail("no error")
        } catch {
            XCTAssertEqual(error as? GeneratorError, .inference("does not open"))
        }
        let about = try await runtimes.runtime(of: files[0]).about
        XCTAssertEqual(about, "0")
    }
}

final class StudentsTests: XCTestCase {
    private let student = #"{"file": "b", "nbytes": 2, "sha256": "bb", "classes": [1, 3], "beside": []}"#

    func testAClassIsMadeByItsStudent() throws {
        let artifact = try artifact(students: "[\(student), \(student.replacingOccurrences(of: "[1, 3]", with: "[0, 2]"))]")
        XCTAssertEqual(try artifact.file(of: 1), ModelFile(name: "b", nbytes: 2, sha256: "bb"))
        XCTAssertEqual(artifact.files.count, 2)
        for label in [4, nil] {
            XCTAssertThrowsError(try artifact.file(of: label)) {
                XCTAssertTrue($0.localizedDescription.contains("no student of"), "\($0)")
            }
        }
    }

    func testOneFileMakesAllClasses() throws {
        let artifact = try artifact(students: "null")
        XCTAssertEqual(artifact.files, [ModelFile(name: artifact.file, nbytes: artifact.nbytes, sha256: artifact.sha256)])
        XCTAssertEqual(try artifact.file(of: 4), artifact.files[0])
    }

    func testNoStudentsAreAnErrorOfTheManifest() {
        XCTAssertThrowsError(try artifact(students: "[]")) {
            XCTAssertTrue($0.localizedDescription.contains("students: is empty"), "\($0)")
        }
    }

    /// The app's own artifact with other students.
    private func artifact(students: String) throws -> Artifact {
        let content = try Data(contentsOf: AppBundle.folder.appendingPathComponent("manifest.json"))
        var values = try XCTUnwrap(JSONSerialization.jsonObject(with: content) as? [String: Any])
        let rows = try XCTUnwrap(values["artifacts"] as? [[String: Any]])
        let given = try JSONSerialization.jsonObject(with: Data(students.utf8), options: .fragmentsAllowed)
        values["artifacts"] = rows.map { $0.merging(["students": given]) { $1 } }
        return try Manifest.parse(JSONSerialization.data(withJSONObject: values)).artifact(AppBundle.artifact)
    }
}

final class CompiledModelsTests: XCTestCase {
    private var folder: URL!

    override func setUp() { folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString) }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: folder) }

    func testAModelIsCompiledOnceAndOthersAreRemoved() async throws {
        let bundle = try ModelBundle(folder: AppBundle.folder)
        let artifact = try bundle.manifest.artifact(AppBundle.artifact)
        let kept = folder.appendingPathComponent("edgegen")
        try FileManager.default.createDirectory(at: kept, withIntermediateDirectories: true)
        try Data("of an older model".utf8).write(to: kept.appendingPathComponent("old.mlmodelc"))
        var compiled: [String] = []
        for _ in 0..<2 {
            for file in artifact.files {
                let place = try await CompiledModels(folder: kept).place(of: file, bundle, artifact) { source in
                    compiled.append(source.lastPathComponent)
                    let made = folder.appendingPathComponent("made")
                    try Data(file.name.utf8).write(to: made)
                    return made
                }
                XCTAssertEqual(try String(contentsOf: place, encoding: .utf8), file.name)
            }
        }
        XCTAssertEqual(compiled, artifact.files.map(\.name))
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: kept.path).count, artifact.files.count)
    }
}
