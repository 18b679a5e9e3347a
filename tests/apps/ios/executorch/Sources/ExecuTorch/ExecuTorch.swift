// Of ExecuTorch's Swift API, what the template calls, with the signatures of its documentation (1.5, "Using ExecuTorch on
// iOS", and its public headers). Its module answers what was recorded: see Recording.
import Foundation

public enum ModuleLoadMode: Int {
    case file, mmap, mmapUseMlock, mmapUseMlockIgnoreErrors
}

public class Module {
    private let recording: Recording
    private var loaded: Set<String> = []

    /// Reads nothing of the file: that comes with a method.
    public init(filePath: String, loadMode: ModuleLoadMode) {
        recording = Recording(file: URL(fileURLWithPath: filePath))
    }

    public func load(_ method: String) throws {
        try recording.check(method)
        loaded.insert(method)
    }

    public func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] {
        if !loaded.contains(method) { try load(method) }
        return [try recording.answer(to: inputs.map { $0.asValue() })]
    }
}

public protocol Scalar {
    static var dataType: DataType { get }
}

public enum DataType: Int8 {
    case byte = 0, int = 3, long = 4, float = 6
}

extension UInt8: Scalar { public static var dataType: DataType { .byte } }
extension Int32: Scalar { public static var dataType: DataType { .int } }
extension Int64: Scalar { public static var dataType: DataType { .long } }
extension Float: Scalar { public static var dataType: DataType { .float } }

public final class Tensor<T: Scalar> {
    public let shape: [Int]
    private let numbers: [T]

    public init(_ scalars: [T], shape: [Int] = []) {
        numbers = scalars
        self.shape = shape.isEmpty ? [scalars.count] : shape
        precondition(self.shape.reduce(1, *) == scalars.count)
    }

    public func scalars() -> [T] { numbers }
}

public protocol ValueConvertible {
    func asValue() -> Value
}

public class Value {
    let content: Any
    let bytes: Data

    init<T>(_ tensor: Tensor<T>) {
        content = tensor
        bytes = tensor.scalars().withUnsafeBytes { Data($0) }
    }

    public func tensor<T: Scalar>() -> Tensor<T>? { content as? Tensor<T> }
}

extension Tensor: ValueConvertible {
    public func asValue() -> Value { Value(self) }
}
