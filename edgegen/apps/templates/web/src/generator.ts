import { GeneratorError } from "./errors";
import { classes, inputOf, sizes, type Artifact, type Manifest, type ModelFile } from "./manifest";
import type { Picture } from "./picture";
import type { Answer, Backend, LoadOptions, Loaded, Made, Request, Tokens } from "./protocol";

const LONGEST_REASON = 120; // characters

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

type Call = Request extends infer Each ? (Each extends Request ? Omit<Each, "id" | "backend"> : never) : never;
type Value = Loaded | Made | Tokens;

/** Makes pictures with one model of a bundle, in a worker of its own. */
export class Generator {
  /** Time of the last picture in the worker: noise, model and pixels. */
  lastMs = 0;
  /** What made the last picture, and how long it took to load: of several students the one that has its class. */
  lastFile!: ModelFile;
  lastLoadMs = 0;
  private worker = this.started();
  private next = 0;
  private over: Error | null = null; // what ended the worker: it answers nothing any more
  private readonly waiting = new Map<number, { call: Call; resolve: (value: Value) => void; reject: (error: Error) => void }>();

  private constructor(
    private readonly options: LoadOptions,
    /** WebAssembly, too, where WebGPU was chosen and gave up; `notes` say why. */
    public backend: Backend,
  ) {}

  manifest!: Manifest;
  artifact!: Artifact;
  loadMs!: number;
  /** What is not as it could be, and why: sentences for people. */
  notes: string[] = [];

  /** Throws a GeneratorError where a file is damaged or missing, or the runtime refuses the model. */
  static async load({ bundle, file, backend, threads }: Options): Promise<Generator> {
    const { chosen, note } = await choose(backend);
    const most = crossOriginIsolated ? Math.min(4, Math.max(1, Math.ceil(navigator.hardwareConcurrency / 2))) : 1;
    const address = new URL(bundle, document.baseURI).href;
    const generator = new Generator({ address, file, threads: crossOriginIsolated ? (threads ?? most) : 1 }, chosen);
    if (note) generator.notes.push(note);
    try {
      await generator.open();
      return generator;
    } catch (error) {
      generator.close();
      throw error;
    }
  }

  /** Of WebAssembly. */
  get threads(): number {
    return this.options.threads;
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
    const made = (await this.call({ call: "generate", seed, label, image, prompt, index })) as Made;
    this.lastMs = made.ms;
    this.lastFile = made.file;
    this.lastLoadMs = made.loadMs;
    return made.picture;
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

  private async open(): Promise<void> {
    Object.assign(this, (await this.call({ call: "load", options: this.options })) as Loaded);
  }

  private started(): Worker {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (worker === this.worker) this.hear(data); // and not one that was given up
    };
    worker.onerror = (event) => {
      if (worker === this.worker) this.giveUp(`the worker stopped: ${event.message || "it could not be loaded"}`);
    };
    return worker;
  }

  private hear(answer: Answer): void {
    if ("refusal" in answer) return this.giveUp(answer.refusal);
    const caller = this.waiting.get(answer.id);
    this.waiting.delete(answer.id);
    if ("error" in answer) caller?.reject(new GeneratorError(answer.error.kind, answer.error.message));
    else caller?.resolve(answer.value);
  }

  /** Where WebGPU does not do it, now or any more, a new worker does all that is waiting, in the same order, by WebAssembly. */
  private giveUp(reason: string): void {
    if (this.backend === "wasm") return this.end(new GeneratorError("inference", `The model cannot be run: ${reason}.`));
    const before = this.artifact === undefined ? "does not run this model" : "stopped";
    this.notes.push(`WebGPU ${before} (${shortened(reason)}): pictures come from WebAssembly.`);
    this.backend = "wasm";
    this.worker.terminate();
    this.worker = this.started();
    const calls = [...this.waiting];
    if (!calls.some(([, { call }]) => call.call === "load")) this.open().catch((error) => this.end(error));
    for (const [id, { call }] of calls) this.post(id, call);
  }

  private call(call: Call): Promise<Value> {
    if (this.over) return Promise.reject(this.over);
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { call, resolve, reject });
      this.post(id, call);
    });
  }

  private post(id: number, call: Call): void {
    this.worker.postMessage({ id, backend: this.backend, ...call });
  }

  private end(error: Error): void {
    this.over = error;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

/** The runtime's messages have paths and addresses of its own sources. */
function shortened(reason: string): string {
  return reason.length > LONGEST_REASON ? `${reason.slice(0, LONGEST_REASON)} …` : reason;
}

/** WebGPU where there is a GPU and not a program in its place; one that is asked for by name may be a program. */
async function choose(wanted: Backend | undefined): Promise<{ chosen: Backend; note?: string }> {
  if (wanted === "wasm") return { chosen: "wasm" };
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> } }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  if (adapter && (wanted === "webgpu" || !adapter.info?.isFallbackAdapter)) return { chosen: "webgpu" };
  return { chosen: "wasm", note: gpu ? "This browser has no GPU for WebGPU." : "This browser has no WebGPU." };
}
