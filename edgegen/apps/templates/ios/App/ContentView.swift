import EdgegenCore
import EdgegenRuntime
import PhotosUI
import SwiftUI

struct ContentView: View {
    @State private var model = GeneratorModel()
    @State private var photoItem: PhotosPickerItem?

    var body: some View {
        NavigationStack {
            Form {
                Section { controls }
                if let failure = model.failure {
                    Section { Label(failure, systemImage: "exclamationmark.triangle").foregroundStyle(.red) }
                }
                Section { grid } footer: { Text(model.timing ?? "") }
                if let selfTest = model.selfTest {
                    Section("Self-test") { Text(selfTest.description).font(.footnote) }
                }
            }
            .navigationTitle(Text(verbatim: {{title_quoted}}))
            .task(id: model.units) { await model.load() }
        }
    }

    @ViewBuilder
    private var controls: some View {
        if model.artifact?.input(.noise) != nil {
            TextField("Seed", value: $model.seed, format: .number.grouping(.never)).keyboardType(.numberPad)
        }
        if let artifact = model.artifact, artifact.classes > 0 {
            Picker("Class", selection: $model.label) {
                ForEach(0..<artifact.classes, id: \.self) { number in
                    Text(number < model.classNames.count ? model.classNames[number] : "\(number)").tag(number)
                }
            }
        }
        if let input = model.artifact?.input(.image) {
            PhotosPicker("Choose a photo", selection: $photoItem, matching: .images)
                .onChange(of: photoItem) { Task { model.photo = await photo(for: input) } }
        }
        if ComputeUnits.allCases.count > 1 {
            Picker("Compute units", selection: $model.units) {
                ForEach(ComputeUnits.allCases, id: \.self) { Text($0.name).tag($0) }
            }
        }
        Button("Make pictures") { Task { await model.makeGrid() } }
            .disabled(model.isBusy || model.artifact == nil || needsPhoto)
    }

    private var needsPhoto: Bool { model.artifact?.input(.image) != nil && model.photo == nil }

    private var grid: some View {
        LazyVGrid(columns: [GridItem(.adaptive(minimum: 88))], spacing: 8) {
            ForEach(model.pictures) { made in
                if let image = made.picture.cgImage {
                    Image(decorative: image, scale: 1).interpolation(.none).resizable().scaledToFit()
                        .accessibilityLabel("Picture of seed \(made.recipe.seed)")
                        .contextMenu {
                            if let place = try? model.png(of: made) { ShareLink(item: place) }
                        }
                }
            }
        }
        .overlay { if model.isBusy { ProgressView() } }
    }

    private func photo(for input: Input) async -> Picture? {
        guard let content = try? await photoItem?.loadTransferable(type: Data.self), let image = UIImage(data: content)
        else { return nil }
        return Picture(image, channels: input.shape[1], height: input.shape[2], width: input.shape[3])
    }
}
