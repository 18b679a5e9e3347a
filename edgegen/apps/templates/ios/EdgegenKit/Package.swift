// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "EdgegenKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "EdgegenCore", targets: ["EdgegenCore"])],
    targets: [
        .target(name: "EdgegenCore"),
        .testTarget(name: "EdgegenCoreTests", dependencies: ["EdgegenCore"]),
    ]
)
