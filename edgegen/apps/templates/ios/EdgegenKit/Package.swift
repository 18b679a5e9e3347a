// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "EdgegenKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "EdgegenKit", targets: ["EdgegenCore", "EdgegenCoreML"])],
    targets: [
        .target(name: "EdgegenCore"),
        .target(name: "EdgegenCoreML", dependencies: ["EdgegenCore"]),
        .testTarget(name: "EdgegenCoreTests", dependencies: ["EdgegenCore"]),
    ]
)
