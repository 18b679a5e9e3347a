/**
 * What went wrong, so that an app can tell its user what to do:
 *
 * - `manifest`: the bundle is of another version, or its parts contradict each other
 * - `file`: a file is missing or the connection is gone
 * - `hash`: a file does not hold what the manifest says
 * - `input`: the caller gave a seed, label, image or prompt that the model does not take
 * - `output`: the model gave something else than the manifest says
 * - `inference`: the runtime could not load or run the model
 * - `unsupported`: this browser, or the page's address, lacks what the app needs
 */
export type Kind = "manifest" | "file" | "hash" | "input" | "output" | "inference" | "unsupported";

export class GeneratorError extends Error {
  constructor(readonly kind: Kind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "GeneratorError";
  }
}
