import type { InferenceSession } from "onnxruntime-web";
import type { Bundle } from "./bundle";
import type { ModelFile } from "./manifest";
import type { Backend } from "./protocol";

const SMALL = 64e6; // bytes of files that stay open together

export interface Opened {
  file: ModelFile;
  session: InferenceSession;
  loadMs: number; // downloads are not counted
}

/** The open files of a model: students are opened when they are needed, and closed for another one unless they are small. */
export class Sessions {
  private opened: Opened[] = []; // the last one was used last

  constructor(
    private readonly bundle: Bundle,
    private readonly runtime: Promise<Pick<typeof import("onnxruntime-web"), "InferenceSession">>,
    private readonly backend: Backend,
  ) {}

  /** Throws a GeneratorError where the file is damaged or missing, and what the runtime throws where it refuses it. */
  async of(file: ModelFile): Promise<Opened> {
    const there = this.opened.find((each) => each.file.file === file.file);
    if (there) {
      this.opened = [...this.opened.filter((each) => each !== there), there];
      return there;
    }
    const bytes = await this.bundle.read(file.file);
    const externalData = await Promise.all(file.beside.map(async (path) => ({ path, data: await this.bundle.read(path) })));
    const { InferenceSession } = await this.runtime; // its download went on beside the file's
    await this.makeRoom(file.nbytes);
    const began = performance.now();
    const session = await InferenceSession.create(bytes, { executionProviders: [this.backend], externalData });
    const made = { file, session, loadMs: performance.now() - began };
    this.opened.push(made);
    return made;
  }

  private async makeRoom(nbytes: number): Promise<void> {
    while (this.opened.length && this.opened.reduce((sum, { file }) => sum + file.nbytes, nbytes) > SMALL) {
      await this.opened.shift()!.session.release();
    }
  }
}
