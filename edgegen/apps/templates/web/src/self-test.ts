import { Bundle } from "./bundle";
import type { Generator } from "./generator";
import { inputOf } from "./manifest";
import { psnr, type Picture } from "./picture";

/** How near this device comes to the golden images: `psnrDb` of every image, against `floorDb`. */
export interface SelfTest {
  file: string;
  floorDb: number;
  psnrDb: number[];
  /** Golden prompts of which this device makes other token numbers. */
  wrongPrompts: string[];
  passed: boolean;
}

/** Makes every golden image of the generator's model again. Throws a GeneratorError where one cannot be made at all. */
export async function selfTest(address: string, generator: Generator): Promise<SelfTest> {
  const bundle = await Bundle.open(address);
  const { artifact } = generator;
  const { samples, shape, prompts = [] } = bundle.manifest.golden;
  const expected = await bundle.read(artifact.golden.file);
  const size = shape[1] * shape[2] * shape[3];
  const given = await goldenImages(bundle, generator);
  const psnrDb = [];
  const wrongPrompts: string[] = [];
  for (const { text, tokens } of prompts) {
    if ((await generator.tokens(text)).join() !== tokens.join()) wrongPrompts.push(text);
  }
  for (const [at, { seed, index, label, prompt = null }] of samples.entries()) {
    const text = prompt === null ? null : prompts[prompt].text;
    const picture = await generator.generate(seed, { label, index, image: given?.[at], prompt: text });
    psnrDb.push(psnr(picture.pixels, expected.subarray(at * size, (at + 1) * size)));
  }
  const floorDb = artifact.golden.floor_db;
  const passed = !wrongPrompts.length && psnrDb.every((each) => each >= floorDb);
  return { file: artifact.file, floorDb, psnrDb, wrongPrompts, passed };
}

/** The pictures that the golden images are made from, null where the model takes none. */
export async function goldenImages(bundle: Bundle, generator: Generator): Promise<Picture[] | null> {
  const input = inputOf(generator.artifact, "image");
  const item = bundle.manifest.golden.inputs.find(({ name }) => name === input?.name);
  if (!item) return null;
  const bytes = await bundle.read(item.file);
  const [count, height, width, channels] = item.shape;
  const size = height * width * channels;
  return Array.from({ length: count }, (_, at) => ({ width, height, channels, pixels: bytes.slice(at * size, (at + 1) * size) }));
}

export function summary({ file, floorDb, psnrDb, wrongPrompts, passed }: SelfTest): string {
  if (wrongPrompts.length) return `Self-test FAILED: other token numbers for ${wrongPrompts.map((text) => JSON.stringify(text)).join(", ")}.`;
  const failed = psnrDb.filter((each) => each < floorDb).length;
  const worst = Math.min(...psnrDb);
  const nearest = worst === Infinity ? "equal to the last bit" : `${worst.toFixed(1)} dB at worst`;
  const verdict = passed ? "passed" : `FAILED, ${failed} are below`;
  return `Self-test ${verdict}: ${psnrDb.length} pictures of ${file}, ${nearest}, floor ${floorDb} dB.`;
}
