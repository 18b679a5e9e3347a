import { GeneratorError } from "./errors";

/** What this app reads of manifest.json, schema "edgegen.bundle/1"; keys that it does not know are ignored. */
export interface Manifest {
  schema: "edgegen.bundle/1";
  name: string;
  license: string;
  class_names: string[];
  colors: "gray" | "RGB";
  artifacts: Artifact[];
  text?: TextInput; // where models take a prompt
  golden: {
    samples: { seed: number; index: number; label: number | null; prompt?: number | null }[];
    prompts?: { text: string; tokens: number[] }[];
    inputs: { name: string; file: string; shape: number[] }[];
    shape: [samples: number, height: number, width: number, channels: number];
  };
  tools: Record<string, string>;
  files: { path: string; nbytes: number; sha256: string }[];
}

/** What a runtime loads. */
export interface ModelFile {
  file: string;
  nbytes: number; // with what lies beside it
  sha256: string;
  beside: string[];
}

/** One of several files that share the classes of a model. */
export interface Student extends ModelFile {
  classes: number[];
}

/** Of several students, `file` is that of the first, and `nbytes` are those of all. */
export interface Artifact extends ModelFile {
  scheme: string;
  students?: Student[];
  inputs: Input[];
  methods: { name: string | null; output: Output }[];
  golden: { file: string; floor_db: number };
  text_encoder?: string;
}

/** From a prompt to the models' input with the role text. */
export interface TextInput {
  tokenizer: { file: string; length: number; end_id: number; pad_id: number };
  encoders: TextEncoder[];
}

export interface TextEncoder extends ModelFile {
  tokens: { name: string; dtype: "int64" | "int32" };
  hidden_states: { name: string; shape: (number | "batch_size")[] };
}

export interface Input {
  name: string;
  role: "noise" | "class" | "image" | "text";
  dtype: "float32" | "int64" | "int32";
  shape: (number | "batch_size")[];
  low: number | null;
  high: number | null;
  seed_offset: number;
}

export interface Output {
  name: string;
  dtype: "float32" | "uint8";
  shape: (number | "batch_size")[];
  layout: "NCHW" | "NHWC";
  low: number;
  high: number;
}

/** Of one sample: `batch_size` is 1. */
export function sizes(shape: (number | "batch_size")[]): number[] {
  return shape.map((size) => (size === "batch_size" ? 1 : size));
}

export function inputOf(artifact: Artifact, role: Input["role"]): Input | undefined {
  return artifact.inputs.find((input) => input.role === role);
}

/** Number of classes; 0 where the model has none. */
export function classes(artifact: Artifact): number {
  return (inputOf(artifact, "class")?.high ?? -1) + 1;
}

/** The file that makes the pictures of a class: that of its student, where there are several. */
export function fileOf(artifact: Artifact, label: number | null): ModelFile {
  const file = artifact.students ? artifact.students.find(({ classes }) => classes.includes(label ?? -1)) : artifact;
  if (!file) throw new GeneratorError("manifest", `The bundle has no file for the class ${label} of ${artifact.file}.`);
  return file;
}

/** Of all that the page fetches for a model: its files, and text encoder and tokenizer where it takes a prompt. */
export function wholeSize({ text, files }: Manifest, artifact: Artifact): number {
  const encoder = text?.encoders.find(({ file }) => file === artifact.text_encoder);
  const tokenizer = encoder && files.find(({ path }) => path === text?.tokenizer.file);
  return artifact.nbytes + (encoder?.nbytes ?? 0) + (tokenizer?.nbytes ?? 0);
}

/** The method whose output is a picture: one of uint8 first, which needs no conversion. */
export function outputOf(artifact: Artifact): Output {
  const outputs = artifact.methods.map((method) => method.output);
  return outputs.find((output) => output.dtype === "uint8") ?? outputs[0];
}
