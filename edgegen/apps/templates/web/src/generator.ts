import { GeneratorError } from "./errors";
import { classes, inputOf, sizes, type Artifact, type Manifest } from "./manifest";
import type { Picture } from "./picture";
import type { Answer, Backend, Loaded, Made, Request, Tokens } from "./protocol";

export interface Options {
  /** The bundle's folder, relative to the page. */
  bundle: string;
  /** The model's file in the bundle. */
  file: string;
  /** Default: WebGPU where the browser has a GPU for it, else WebAssembly. */
  backend?: Backend;
  /** Of WebAssembly. Default: half of the processor's, at most 4; 1 where the page is not cross-origin isolated. */
  threads?: number;
}

export interface Condition {
  /** Class number, where the model has classes. */
  label?: number | null;
  /** A picture of `imageSize`, where the model takes one. */
  image?: Picture | null;
  /** Any text, where the model takes one; what is too long for its tokenizer is cut. */
  prompt?: string | null;
  /** Of the sample of the seed; 0 by default. */
  index?: number;
}

type Call = Request extends infer Each ? (Each extends Request ? Omit<Each, "id"> : never) : never;

/** Makes pictures with one model of a bundle, in a worker of its own. */
export class Generator {
  /** Time of the last picture in the worker: noise, model and pixels. */
  lastMs = 0;
  private next = 0;
  private readonly waiting = new Map<number, { resolve: (value: Loaded | Made | Tokens) => void; reject: (error: Error) => void }>();

  private constructor(private readonly worker: Worker) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const caller = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ("error" in data) caller?.reject(new GeneratorError(data.error.kind, data.error.message));
      else caller?.resolve(data.value);
    };
    worker.onerror = (event) => this.end(new GeneratorError("inference", `The worker stopped: ${event.message || "it could not be loaded"}.`));
  }

  manifest!: Manifest;
  artifact!: Artifact;
  backend!: Backend;
  loadMs!: number;
  threads!: number;
  /** What is not as it could be, and why: sentences for people. */
  notes: string[] = [];

  /** Throws a GeneratorError where a file is damaged or missing, or the runtime refuses the model. */
  static async load({ bundle, file, backend, threads }: Options): Promise<Generator> {
    const generator = new Generator(new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }));
    const { chosen, note } = await choose(backend);
    const most = crossOriginIsolated ? Math.min(4, Math.max(1, Math.ceil(navigator.hardwareConcurrency / 2))) : 1;
    generator.threads = crossOriginIsolated ? (threads ?? most) : 1;
    if (note) generator.notes.push(note);
    try {
      const address = new URL(bundle, document.baseURI).href;
      const options = { address, file, backend: chosen, threads: generator.threads };
      const loaded = (await generator.call({ call: "load", options })) as Loaded;
      const { notes, ...facts } = loaded;
      generator.notes.push(...notes);
      return Object.assign(generator, facts);
    } catch (error) {
      generator.close();
      throw error;
    }
  }

  /** Number of classes; 0 where there are none. */
  get classes(): number {
    return classes(this.artifact);
  }

  get takesNoise(): boolean {
    return inputOf(this.artifact, "noise") !== undefined;
  }

  get takesPrompt(): boolean {
    return inputOf(this.artifact, "text") !== undefined;
  }

  /** Size of the picture that the model takes, null where it takes none. */
  get imageSize(): { width: number; height: number; channels: number } | null {
    const input = inputOf(this.artifact, "image");
    if (!input) return null;
    const [, channels, height, width] = sizes(input.shape);
    return { channels, height, width };
  }

  /**
   * One picture. The same arguments give the same picture on every device.
   *
   * @param seed 0 to 2^63 - 1; above Number.MAX_SAFE_INTEGER as a bigint. It changes nothing where no input is noise
   * Throws a GeneratorError for what the model does not take.
   */
  async generate(seed: number | bigint, { label = null, image = null, prompt = null, index = 0 }: Condition = {}): Promise<Picture> {
    this.check(seed, label, image);
    if (this.takesPrompt !== (prompt !== null)) throw new GeneratorError("input", `This model ${this.takesPrompt ? "needs a" : "takes no"} prompt.`);
    const { picture, ms } = (await this.call({ call: "generate", seed, label, image, prompt, index })) as Made;
    this.lastMs = ms;
    return picture;
  }

  /** The token numbers of a prompt, as the model's text encoder gets them. */
  async tokens(prompt: string): Promise<number[]> {
    return ((await this.call({ call: "tokens", prompt })) as Tokens).tokens;
  }

  close(): void {
    this.end(new GeneratorError("inference", "The generator was closed."));
  }

  private check(seed: number | bigint, label: number | null, image: Picture | null): void {
    const isWhole = typeof seed === "bigint" || Number.isSafeInteger(seed);
    if (!isWhole || seed < 0 || BigInt(seed) >= 2n ** 63n) throw new GeneratorError("input", `The seed is ${seed}; it must be a whole number from 0 to 2^63 - 1.`);
    if (this.classes ? label === null || !Number.isInteger(label) || label < 0 || label >= this.classes : label !== null) {
      const there = this.classes ? `the classes 0 to ${this.classes - 1}` : "no classes";
      throw new GeneratorError("input", `The label is ${label ?? "missing"}; this model has ${there}.`);
    }
    const size = this.imageSize;
    if (!size && image) throw new GeneratorError("input", "This model takes no picture.");
    if (size && (image?.width !== size.width || image.height !== size.height || image.channels !== size.channels)) {
      throw new GeneratorError("input", `This model needs a picture of ${size.width} x ${size.height} pixels and ${size.channels} channels.`);
    }
  }

  private call(call: Call): Promise<Loaded | Made | Tokens> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...call });
    });
  }

  private end(error: Error): void {
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

/** WebGPU where there is a GPU and not a program in its place; one that is asked for by name may be a program. */
async function choose(wanted: Backend | undefined): Promise<{ chosen: Backend; note?: string }> {
  if (wanted === "wasm") return { chosen: "wasm" };
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> } }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (adapter && (wanted === "webgpu" || !adapter.info?.isFallbackAdapter)) return { chosen: "webgpu" };
  return { chosen: "wasm", note: gpu ? "This browser has no GPU for WebGPU." : "This browser has no WebGPU." };
}
