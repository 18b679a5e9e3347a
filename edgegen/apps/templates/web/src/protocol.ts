// What generator.ts and its worker say to each other.

import type { Kind } from "./errors";
import type { Artifact, Manifest } from "./manifest";
import type { Picture } from "./picture";

export type Backend = "webgpu" | "wasm";

export interface LoadOptions {
  address: string;
  file: string;
  backend: Backend;
  threads: number;
}

export type Request =
  | { id: number; call: "load"; options: LoadOptions }
  | { id: number; call: "generate"; seed: number | bigint; label: number | null; image: Picture | null; prompt: string | null; index: number }
  | { id: number; call: "tokens"; prompt: string };

export interface Loaded {
  manifest: Manifest;
  artifact: Artifact;
  backend: Backend;
  loadMs: number;
  notes: string[];
}

export interface Made {
  picture: Picture;
  ms: number;
}

export interface Tokens {
  tokens: number[];
}

export type Answer = { id: number; value: Loaded | Made | Tokens } | { id: number; error: { kind: Kind; message: string } };
