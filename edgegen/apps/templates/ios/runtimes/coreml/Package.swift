// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "EdgegenRuntime",
    platforms: [.iOS("{{ios}}"), .macOS(.v14)],
    products: [.library(name: "EdgegenRuntime", targets: ["EdgegenRuntime"])],
    dependencies: [.package(path: "../EdgegenKit")],
    targets: [
        .target(name: "EdgegenRuntime", dependencies: [.product(name: "EdgegenCore", package: "EdgegenKit")])
    ]
)
