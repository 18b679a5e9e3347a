import type { InferenceSession, Tensor } from "onnxruntime-web";
import type { Bundle } from "./bundle";
import { GeneratorError } from "./errors";
import { sizes, type Artifact, type TextEncoder, type TextInput } from "./manifest";
import type { Backend } from "./protocol";
import { tokenizerOf, type Encode } from "./tokenizer";

type Runtime = Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor">;
type ExternalData = { path: string; data: Uint8Array<ArrayBuffer> }[];

/** From a prompt to what a model takes: tokenizer and text encoder. */
export class Text {
  private session!: InferenceSession;
  private Tensor!: Runtime["Tensor"];
  private last: { prompt: string; states: Float32Array } | null = null; // many pictures have one prompt

  private constructor(
    private readonly spec: TextInput["tokenizer"],
    private readonly encode: Encode,
    private readonly encoder: TextEncoder,
    private readonly bytes: Uint8Array<ArrayBuffer>,
    private readonly externalData: ExternalData,
  ) {}

  /** Fetches tokenizer and encoder of a model. Throws a GeneratorError where one is damaged or missing. */
  static async read(bundle: Bundle, artifact: Artifact): Promise<Text> {
    const { text } = bundle.manifest;
    const encoder = text?.encoders.find(({ file }) => file === artifact.text_encoder);
    if (!text || !encoder) throw new GeneratorError("manifest", `The bundle has no text encoder ${artifact.text_encoder}.`);
    const encode = tokenizerOf(new TextDecoder().decode(await bundle.read(text.tokenizer.file)));
    const externalData = await Promise.all(encoder.beside.map(async (path) => ({ path, data: await bundle.read(path) })));
    return new Text(text.tokenizer, encode, encoder, await bundle.read(encoder.file), externalData);
  }

  async start(backend: Backend, { InferenceSession, Tensor }: Runtime): Promise<void> {
    this.session = await InferenceSession.create(this.bytes, { executionProviders: [backend], externalData: this.externalData });
    this.Tensor = Tensor;
  }

  /** As many numbers as the encoder takes: too many lose their end, too few get padding. */
  tokens(prompt: string): number[] {
    const { length, end_id, pad_id } = this.spec;
    const ids = this.encode(prompt);
    if (ids.length > length) return [...ids.slice(0, length - 1), end_id];
    return [...ids, ...Array<number>(length - ids.length).fill(pad_id)];
  }

  /** The encoder's output for a prompt; the caller disposes it. */
  async states(prompt: string): Promise<Tensor> {
    const { tokens, hidden_states } = this.encoder;
    const shape = sizes(hidden_states.shape);
    if (this.last?.prompt !== prompt) {
      const ids = this.tokens(prompt);
      const data = tokens.dtype === "int64" ? BigInt64Array.from(ids, BigInt) : Int32Array.from(ids);
      const feed = new this.Tensor(tokens.dtype, data, [1, ids.length]);
      const result = (await this.session.run({ [tokens.name]: feed }, [hidden_states.name]))[hidden_states.name];
      if (result.dims.join() !== shape.join()) {
        throw new GeneratorError("output", `The text encoder gave ${result.dims.join(" x ")}; the manifest says ${shape.join(" x ")}.`);
      }
      this.last = { prompt, states: ((await result.getData()) as Float32Array).slice() };
      result.dispose();
      feed.dispose();
    }
    return new this.Tensor("float32", this.last.states, shape);
  }
}
