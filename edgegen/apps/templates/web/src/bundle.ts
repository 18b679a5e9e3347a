import { GeneratorError } from "./errors";
import type { Artifact, Manifest } from "./manifest";

const SCHEMA = "edgegen.bundle/1";

/** The files of a bundle at an address; each is compared with its SHA-256 before it is used. */
export class Bundle {
  private constructor(private readonly address: string, readonly manifest: Manifest, readonly sha256: string) {}

  /** @param address absolute, of the bundle's folder, with a slash at its end */
  static async open(address: string): Promise<Bundle> {
    if (!globalThis.crypto?.subtle) {
      throw new GeneratorError("unsupported", "The browser checks files on secure pages only: open this one by https, or on localhost.");
    }
    const written = new TextDecoder().decode(await fetched(address, "manifest.json.sha256"));
    const expected = /^[0-9a-f]{64}/.exec(written)?.[0] ?? "nothing";
    const bytes = await whole(address, "manifest.json", expected);
    let manifest: Manifest;
    try {
      manifest = JSON.parse(new TextDecoder().decode(bytes)) as Manifest;
    } catch (cause) {
      throw new GeneratorError("manifest", "manifest.json is no JSON.", { cause });
    }
    if (manifest.schema !== SCHEMA) {
      throw new GeneratorError("manifest", `The bundle is of the schema ${manifest.schema}, and this app reads ${SCHEMA}.`);
    }
    return new Bundle(address, manifest, expected);
  }

  artifact(file: string): Artifact {
    const artifact = this.manifest.artifacts.find((row) => row.file === file);
    if (!artifact) throw new GeneratorError("manifest", `The bundle has no ${file}.`);
    return artifact;
  }

  /** A file that the manifest lists. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer>> {
    const row = this.manifest.files.find((file) => file.path === path);
    if (!row) throw new GeneratorError("manifest", `The manifest does not list ${path}.`);
    return whole(this.address, path, row.sha256);
  }
}

/** SHA-256 in hexadecimal. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A file with this hash. One that was damaged in a cache is fetched from the host once more. */
async function whole(address: string, path: string, expected: string): Promise<Uint8Array<ArrayBuffer>> {
  let actual = "";
  for (const cache of ["default", "reload"] as const) {
    const bytes = await fetched(address, path, cache);
    actual = await sha256(bytes);
    if (actual === expected) return bytes;
  }
  throw new GeneratorError(
    "hash",
    `${path} is damaged: its SHA-256 begins with ${actual.slice(0, 12)}, and that of the right file with ` +
      `${expected.slice(0, 12)}. Whoever runs this page must upload the file again.`,
  );
}

async function fetched(address: string, path: string, cache: RequestCache = "default"): Promise<Uint8Array<ArrayBuffer>> {
  const place = address + path.split("/").map(encodeURIComponent).join("/");
  let response: Response;
  try {
    response = await fetch(place, { cache });
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw new GeneratorError("file", `${path} could not be fetched; is there a connection?`, { cause });
  }
  throw new GeneratorError("file", `${path} is not there: the host answers ${response.status}.`);
}
