// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "EdgegenRuntime",
    platforms: [.iOS("{{ios}}"), .macOS(.v14)],
    products: [.library(name: "EdgegenRuntime", targets: ["EdgegenRuntime"])],
    dependencies: [
        .package(path: "../EdgegenKit"),
        // Ready-made libraries are on its branches "swiftpm-<version>" alone.
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.0"),
    ],
    targets: [
        .target(
            name: "EdgegenRuntime",
            dependencies: [
                .product(name: "EdgegenCore", package: "EdgegenKit"),
                .product(name: "executorch", package: "executorch"),
                .product(name: "{{delegate}}", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
{{#quantized}}
                .product(name: "kernels_quantized", package: "executorch"),
{{/quantized}}
            ],
            // What "executorch" 1.5.0 calls and does not name, once -all_load links all of it (its issue 22686).
            linkerSettings: [
                .linkedFramework("Accelerate", .when(platforms: [.iOS, .macOS])),
                .linkedFramework("CoreImage", .when(platforms: [.iOS, .macOS])),
            ]
        )
    ]
)
