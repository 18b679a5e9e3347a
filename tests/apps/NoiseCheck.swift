// Answers the requests of tests/noise_programs.py.
import Foundation

@main
enum NoiseCheck {
    static let runs = 300

    static func main() {
        while let line = readLine() {
            let words = answer(line.split(separator: " "))
            words.withUnsafeBytes { FileHandle.standardOutput.write(Data($0)) }
        }
    }

    static func answer(_ request: [Substring]) -> [UInt32] {
        let given = request.dropFirst().map { UInt64($0)! }
        if request[0] == "philox" {
            let w = given.map { UInt32($0) }
            let words = Noise.philox4x32((w[0], w[1], w[2], w[3]), key: (w[4], w[5]))
            return [words.0, words.1, words.2, words.3]
        }
        let draw = { Noise.normal(seed: given[0], first: Int(given[1]), count: Int(given[2]), size: Int(given[3])) }
        return (request[0] == "normal" ? draw() : [fastest(draw)]).map(\.bitPattern)
    }

    static func fastest(_ draw: () -> [Float]) -> Float {
        (0..<runs).map { _ in
            let began = DispatchTime.now().uptimeNanoseconds
            _ = draw()
            return Float(DispatchTime.now().uptimeNanoseconds - began) / 1e6
        }.min()!
    }
}
