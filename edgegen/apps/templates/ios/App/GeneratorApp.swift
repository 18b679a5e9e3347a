import SwiftUI

@main
struct GeneratorApp: App {
    var body: some Scene {
        WindowGroup { ContentView() }
    }
}
