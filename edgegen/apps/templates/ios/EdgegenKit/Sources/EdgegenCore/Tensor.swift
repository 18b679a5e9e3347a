/// Numbers in row-major order with the sizes of their axes; what a ``ModelRuntime`` takes and gives.
public struct Tensor: Equatable, Sendable {
    public enum Values: Equatable, Sendable {
        case float32([Float])
        case int64([Int64])
        case int32([Int32])
        case uint8([UInt8])
    }

    public let shape: [Int]
    public let values: Values

    /// - Precondition: as many values as the shape has places
    public init(_ shape: [Int], _ values: Values) {
        let count =
            switch values {
            case let .float32(numbers): numbers.count
            case let .int64(numbers): numbers.count
            case let .int32(numbers): numbers.count
            case let .uint8(numbers): numbers.count
            }
        precondition(count == shape.reduce(1, *), "\(count) values do not fill a tensor of \(shape)")
        self.shape = shape
        self.values = values
    }
}
