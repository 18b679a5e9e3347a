// Everything heavy: the model's file, onnxruntime, noise and pixels. generator.ts is what talks to it.

import type { Tensor } from "onnxruntime-web";
import wasmScript from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmBinary from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import gpuScript from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import gpuBinary from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import { Bundle } from "./bundle";
import { GeneratorError } from "./errors";
import { fileOf, inputOf, outputOf, sizes, type Artifact, type Input } from "./manifest";
import { normal } from "./noise";
import { pictureOf, toPlanes, type Picture } from "./picture";
import { Sessions } from "./sessions";
import { Text } from "./text";
import type { Answer, Backend, LoadOptions, Loaded, Made, Request, Tokens } from "./protocol";

type Runtime = Pick<typeof import("onnxruntime-web"), "InferenceSession" | "Tensor" | "env">;
type Device = { lost: Promise<unknown> };

const LOSS_MS = 200; // a run fails a moment before the browser says that the GPU is lost

interface Model {
  artifact: Artifact;
  sessions: Sessions;
  Tensor: Runtime["Tensor"];
  text: Text | null; // null where it takes no prompt
}

let model: Model | undefined;
let backend: Backend;
let turn: Promise<unknown> = Promise.resolve(); // a session runs one picture at a time

self.onmessage = ({ data }: MessageEvent<Request>) => {
  turn = turn.then(() => obey(data));
};

async function obey(request: Request): Promise<void> {
  try {
    const value = await done(request);
    const kept = "picture" in value ? [value.picture.pixels.buffer] : [];
    self.postMessage({ id: request.id, value } satisfies Answer, { transfer: kept });
  } catch (error) {
    self.postMessage((await failure(request.id, error)) satisfies Answer);
  }
}

/** Wrong files and calls are so with WebAssembly, too; what else fails in WebGPU may be its own fault. */
async function failure(id: number, error: unknown): Promise<Answer> {
  const isOwn = error instanceof GeneratorError;
  if (backend === "webgpu" && (!isOwn || error.kind === "output")) {
    await new Promise((resolve) => setTimeout(resolve, LOSS_MS));
    return { refusal: error instanceof Error ? error.message : String(error) };
  }
  const { kind, message } = isOwn ? error : new GeneratorError("inference", `The model failed: ${error}`);
  return { id, error: { kind, message } };
}

async function done(request: Request): Promise<Loaded | Made | Tokens> {
  if (request.call === "load") {
    backend = request.backend;
    return load(request.options);
  }
  if (request.call === "generate") return make(request);
  if (!model) throw new GeneratorError("input", "The model is not loaded.");
  return { tokens: textOf(model).tokens(request.prompt) };
}

function textOf({ text }: Model): Text {
  if (!text) throw new GeneratorError("input", "This model takes no prompt.");
  return text;
}

async function load({ address, file, threads }: LoadOptions): Promise<Loaded> {
  const runtime = library(threads); // its download goes on beside the model's
  runtime.catch(() => {}); // thrown where it is awaited
  const bundle = await Bundle.open(address);
  const artifact = bundle.artifact(file);
  const text = inputOf(artifact, "text") ? await Text.read(bundle, artifact) : null;
  const sessions = new Sessions(bundle, runtime, backend);
  let { loadMs } = await sessions.of(fileOf(artifact, artifact.students?.[0].classes[0] ?? null));
  const { InferenceSession, Tensor, env } = await runtime;
  const began = performance.now();
  await text?.start(backend, { InferenceSession, Tensor });
  loadMs += performance.now() - began;
  if (backend === "webgpu") watch((await env.webgpu.device) as Device);
  model = { artifact, sessions, Tensor, text };
  return { manifest: bundle.manifest, artifact, loadMs };
}

/** Told at once: a run on a GPU that is gone may never end. */
function watch(device: Device): void {
  device.lost.then(() => self.postMessage({ refusal: "the browser has lost the GPU" } satisfies Answer));
}

async function library(threads: number): Promise<Runtime> {
  const gpu = backend === "webgpu";
  const runtime: Runtime = gpu ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
  runtime.env.logLevel = "error";
  runtime.env.wasm.numThreads = threads;
  runtime.env.wasm.wasmPaths = { mjs: absolute(gpu ? gpuScript : wasmScript) };
  runtime.env.wasm.wasmBinary = await webAssembly(absolute(gpu ? gpuBinary : wasmBinary)).catch((error) => {
    throw gpu ? new Error(error.message) : error; // the other runtime may be there
  });
  return runtime;
}

function absolute(place: string): string {
  return new URL(place, self.location.href).href;
}

/**
 * Hosts like to answer with a page where a file is missing, which WebAssembly's own message hides. The service worker
 * may have kept such an answer: it is asked for once more, from the host.
 */
async function webAssembly(address: string): Promise<ArrayBuffer> {
  let status = 0;
  for (const cache of ["default", "reload"] as const) {
    let response: Response;
    try {
      response = await fetch(address, { cache });
    } catch (cause) {
      throw new GeneratorError("file", "The runtime could not be fetched; is there a connection?", { cause });
    }
    const binary = await response.arrayBuffer();
    const magic = new Uint8Array(binary, 0, Math.min(4, binary.byteLength)).join();
    if (response.ok && magic === "0,97,115,109") return binary;
    status = response.status;
  }
  throw new GeneratorError("file", `${new URL(address).pathname} is no WebAssembly: the host answers ${status}.`);
}

async function make({ seed, label, image, prompt, index }: Extract<Request, { call: "generate" }>): Promise<Made> {
  if (!model) throw new GeneratorError("input", "The model is not loaded.");
  const { artifact, sessions, Tensor } = model;
  const { file, session, loadMs } = await sessions.of(fileOf(artifact, label));
  const began = performance.now();
  const feeds: Record<string, Tensor> = {};
  for (const input of artifact.inputs) {
    feeds[input.name] = input.role === "text" ? await textOf(model).states(prompt ?? "") : tensor(Tensor, input, seed, label, image, index);
  }
  const output = outputOf(artifact);
  const results = await session.run(feeds, [output.name]);
  const result = results[output.name];
  const picture = pictureOf((await result.getData()) as Float32Array | Uint8Array, result.dims, output);
  result.dispose();
  for (const feed of Object.values(feeds)) feed.dispose();
  return { picture, ms: performance.now() - began, file, loadMs };
}

function tensor(
  Tensor: Runtime["Tensor"], input: Input, seed: number | bigint, label: number | null, image: Picture | null, index: number,
): Tensor {
  const shape = sizes(input.shape);
  switch (input.role) {
    case "noise": {
      const size = shape.slice(1).reduce((product, each) => product * each, 1);
      const start = BigInt(seed) + BigInt(input.seed_offset);
      return new Tensor("float32", normal(BigInt.asUintN(64, start), index, 1, size), shape);
    }
    case "class":
      return input.dtype === "int64"
        ? new Tensor("int64", BigInt64Array.of(BigInt(label ?? 0)), shape)
        : new Tensor("int32", Int32Array.of(label ?? 0), shape);
    default:
      if (!image) throw new GeneratorError("input", "This model needs a picture.");
      return new Tensor("float32", toPlanes(image, input.low ?? 0, input.high ?? 1), shape);
  }
}
