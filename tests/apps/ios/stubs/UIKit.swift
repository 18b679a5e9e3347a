// Of UIKit, what the model of the screen calls, with the signatures of Apple's documentation; nothing here runs.
import Foundation

@MainActor
public class UIDevice {
    public class var current: UIDevice { fatalError() }
    public var model: String { fatalError() }
    public var systemVersion: String { fatalError() }
}

extension URL {
    /// Of Foundation; that of Linux has none.
    public static var documentsDirectory: URL { fatalError() }
}
