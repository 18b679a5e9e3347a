// swift-tools-version: 6.0
// In place of ExecuTorch's package: the products that the template names, of which all are the stub.
import PackageDescription

let names = ["executorch", "backend_xnnpack", "backend_coreml", "kernels_optimized", "kernels_quantized"]
let package = Package(
    name: "executorch",
    products: names.map { .library(name: $0, targets: ["ExecuTorch"]) },
    targets: [.target(name: "ExecuTorch")]
)
