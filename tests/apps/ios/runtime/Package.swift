// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "Runtime",
    dependencies: [.package(path: "../EdgegenKit"), .package(path: "../EdgegenRuntime"), .package(path: "../executorch")],
    targets: [
        .testTarget(
            name: "RuntimeTests",
            dependencies: [
                .product(name: "EdgegenCore", package: "EdgegenKit"),
                .product(name: "EdgegenRuntime", package: "EdgegenRuntime"),
                .product(name: "executorch", package: "executorch"),
            ])
    ]
)
