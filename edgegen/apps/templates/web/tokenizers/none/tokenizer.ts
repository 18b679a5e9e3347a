import { GeneratorError } from "./errors";

/** From a prompt to the numbers of its parts. */
export type Encode = (prompt: string) => number[];

/** This page was made from a bundle without prompts, and so without a tokenizer's library: throws a GeneratorError. */
export function tokenizerOf(_content: string): Encode {
  throw new GeneratorError("manifest", "This page was made without a tokenizer; make it again from this bundle with `edgegen app web`.");
}
