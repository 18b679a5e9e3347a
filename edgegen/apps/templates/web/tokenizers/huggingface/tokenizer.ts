import { Tokenizer } from "@huggingface/tokenizers";
import { GeneratorError } from "./errors";

/** From a prompt to the numbers of its parts, beginning and end included, as many as there are. */
export type Encode = (prompt: string) => number[];

/** By the content of tokenizer.json. Throws a GeneratorError where it is none that this app reads. */
export function tokenizerOf(content: string): Encode {
  let tokenizer: Tokenizer;
  try {
    tokenizer = new Tokenizer(JSON.parse(content), {});
  } catch (cause) {
    throw new GeneratorError("manifest", "The bundle's tokenizer is none that this app reads.", { cause });
  }
  // In JavaScript the last Σ of a word becomes ς in small letters; networks were trained with a library that writes σ.
  return (prompt) => tokenizer.encode(prompt.replaceAll("Σ", "σ")).ids;
}
