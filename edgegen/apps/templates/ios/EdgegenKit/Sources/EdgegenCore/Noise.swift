import Foundation

/// Portable seeded noise: the numbers of edgegen's `edgegen.noise.normal`; its manual's page "Noise" specifies them.
public enum Noise {
    private static let rounds = 10
    private static let multipliers: (UInt32, UInt32) = (0xD251_1F53, 0xCD9E_8D57)
    private static let weyl: (UInt32, UInt32) = (0x9E37_79B9, 0xBB67_AE85)
    private static let two32 = 4_294_967_296.0

    /// Standard normal noise for the samples `first ..< first + count` of a seed, `size` values each, one after the
    /// other. Sample i depends on the seed, i and `size` only.
    ///
    /// - Parameter size: values of one sample: channels * height * width
    /// - Precondition: `first`, `count` and `size` are 0 or more.
    public static func normal(seed: UInt64, first: Int, count: Int, size: Int) -> [Float] {
        precondition(first >= 0 && count >= 0 && size >= 0, "first, count and size must be 0 or more")
        let key = (UInt32(truncatingIfNeeded: seed), UInt32(seed >> 32))
        var values = [Float](repeating: 0, count: count * size)
        for sample in 0..<count {
            let index = UInt64(first + sample)
            let start = sample * size
            for at in stride(from: 0, to: size, by: 4) {
                let counter = (UInt32(at / 4), UInt32(0), UInt32(truncatingIfNeeded: index), UInt32(index >> 32))
                let words = philox4x32(counter, key: key)
                put(words.0, words.1, into: &values, at: start + at, end: start + size)
                put(words.2, words.3, into: &values, at: start + at + 2, end: start + size)
            }
        }
        return values
    }

    /// Ten rounds of Philox4x32: the four words of a counter become four random words.
    public static func philox4x32(
        _ counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)
    ) -> (UInt32, UInt32, UInt32, UInt32) {
        var words = counter
        var key = key
        for _ in 0..<rounds {
            let product0 = multipliers.0.multipliedFullWidth(by: words.0)
            let product1 = multipliers.1.multipliedFullWidth(by: words.2)
            words = (
                product1.high ^ words.1 ^ key.0, product1.low,
                product0.high ^ words.3 ^ key.1, product0.low
            )
            key = (key.0 &+ weyl.0, key.1 &+ weyl.1)
        }
        return words
    }

    /// Box-Muller in float64; what would lie at `end` or beyond is dropped.
    private static func put(_ word0: UInt32, _ word1: UInt32, into values: inout [Float], at: Int, end: Int) {
        let radius = (-2 * log((Double(word0) + 0.5) / two32)).squareRoot()
        let angle = 2 * Double.pi * ((Double(word1) + 0.5) / two32)
        if at < end { values[at] = Float(radius * cos(angle)) }
        if at + 1 < end { values[at + 1] = Float(radius * sin(angle)) }
    }
}
