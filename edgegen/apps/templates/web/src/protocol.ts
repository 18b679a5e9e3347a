// What generator.ts and its worker say to each other.

import type { Kind } from "./errors";
import type { Artifact, Manifest, ModelFile } from "./manifest";
import type { Picture } from "./picture";

export type Backend = "webgpu" | "wasm";

export interface LoadOptions {
  address: string;
  file: string;
  threads: number;
}

export type Request =
  | { id: number; call: "load"; backend: Backend; options: LoadOptions }
  | { id: number; call: "generate"; seed: number | bigint; label: number | null; image: Picture | null; prompt: string | null; index: number }
  | { id: number; call: "tokens"; prompt: string };

export interface Loaded {
  manifest: Manifest;
  artifact: Artifact;
  loadMs: number;
}

export interface Made {
  picture: Picture;
  ms: number;
  /** What made it, and how long that took to load. */
  file: ModelFile;
  loadMs: number;
}

export interface Tokens {
  tokens: number[];
}

/** `refusal`: why WebGPU does not do it, or any more; another worker may do all that is waiting by WebAssembly. */
export type Answer =
  | { id: number; value: Loaded | Made | Tokens }
  | { id: number; error: { kind: Kind; message: string } }
  | { refusal: string };
