import Foundation

/// The bundle of this app: tests read it where it lies in the project.
enum AppBundle {
    static let folder = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
        .appendingPathComponent("bundle")
    static let artifact = {{artifact_quoted}}
}
