import Foundation
#if canImport(CryptoKit)
    import CryptoKit
#endif

/// SHA-256 (FIPS 180-4) in hexadecimal: CryptoKit's on Apple's systems; elsewhere, where only tests run, written out.
public enum SHA256Digest {
    /// Of bytes in memory.
    public static func hex(_ content: Data) -> String {
        #if canImport(CryptoKit)
            return text(SHA256.hash(data: content))
        #else
            return text(Plain.hash([UInt8](content)))
        #endif
    }

    private static func text(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String(format: "%02x", $0) }.joined()
    }

    #if !canImport(CryptoKit)
        private enum Plain {
            static let primes: [Double] = (2...311).filter { number in
                !(2..<number).contains { number.isMultiple(of: $0) }
            }.map(Double.init)
            // The first 32 bits of the fractional parts of the roots of the first primes (sections 4.2.2 and 5.3.3).
            static let start: [UInt32] = primes.prefix(8).map { fraction($0.squareRoot()) }
            static let keys: [UInt32] = primes.prefix(64).map { fraction(cbrt($0)) }

            static func fraction(_ root: Double) -> UInt32 { UInt32((root - root.rounded(.down)) * 4_294_967_296) }

            static func rotate(_ word: UInt32, _ count: UInt32) -> UInt32 { word >> count | word << (32 - count) }

            static func hash(_ content: [UInt8]) -> [UInt8] {
                var padded = content + [0x80]
                padded += [UInt8](repeating: 0, count: (120 - padded.count % 64) % 64)
                padded += (0..<8).map { UInt8(truncatingIfNeeded: (8 * UInt64(content.count)) >> (56 - 8 * UInt64($0))) }
                var state = start
                var words = [UInt32](repeating: 0, count: 64)
                for block in stride(from: 0, to: padded.count, by: 64) {
                    for at in 0..<16 {
                        words[at] = (0..<4).reduce(0) { $0 << 8 | UInt32(padded[block + 4 * at + $1]) }
                    }
                    for at in 16..<64 {
                        let (old, recent) = (words[at - 15], words[at - 2])
                        let sigma0 = rotate(old, 7) ^ rotate(old, 18) ^ old >> 3
                        let sigma1 = rotate(recent, 17) ^ rotate(recent, 19) ^ recent >> 10
                        words[at] = words[at - 16] &+ sigma0 &+ words[at - 7] &+ sigma1
                    }
                    mix(words, into: &state)
                }
                return state.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * UInt32($0))) } }
            }

            static func mix(_ words: [UInt32], into state: inout [UInt32]) {
                var s = state
                for at in 0..<64 {
                    let sum1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)
                    let choice = s[4] & s[5] ^ ~s[4] & s[6]
                    let first = s[7] &+ sum1 &+ choice &+ keys[at] &+ words[at]
                    let sum0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)
                    let majority = s[0] & s[1] ^ s[0] & s[2] ^ s[1] & s[2]
                    s = [first &+ sum0 &+ majority, s[0], s[1], s[2], s[3] &+ first, s[4], s[5], s[6]]
                }
                for at in 0..<8 { state[at] = state[at] &+ s[at] }
            }
        }
    #endif
}
