import { GeneratorError } from "./errors";
import { sizes, type Output } from "./manifest";

/** Bytes in the order height, width, channels: 1 channel is gray, 3 are red, green and blue. */
export interface Picture {
  width: number;
  height: number;
  channels: number;
  pixels: Uint8Array<ArrayBuffer>;
}

/** The picture in a model's output. Throws where it is not as the manifest says. */
export function pictureOf(values: ArrayLike<number>, dims: readonly number[], output: Output): Picture {
  const expected = sizes(output.shape);
  if (dims.join() !== expected.join()) {
    throw new GeneratorError("output", `The model gave an output of ${dims.join(" x ")}; the manifest says ${expected.join(" x ")}.`);
  }
  const planes = output.layout === "NCHW";
  const [channels, height, width] = planes ? expected.slice(1) : [expected[3], expected[1], expected[2]];
  const pixels = new Uint8Array(width * height * channels);
  for (let at = 0; at < pixels.length; at++) {
    const channel = at % channels;
    const value = values[planes ? channel * width * height + (at - channel) / channels : at];
    if (!Number.isFinite(value)) throw new GeneratorError("output", `The model gave ${value}, which is no pixel.`);
    pixels[at] = output.dtype === "uint8" ? value : toByte(value, output);
  }
  return { width, height, channels, pixels };
}

/** round(255 (x - low) / (high - low)), cut to 0 .. 255: in float32 and to even, as edgegen itself does. */
function toByte(value: number, { low, high }: Output): number {
  const scaled = Math.fround(Math.fround(value - Math.fround(low)) * Math.fround(255 / (high - low)));
  const nearest = Math.round(scaled);
  const even = nearest - scaled === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
  return Math.min(255, Math.max(0, even));
}

/** x = low + pixel (high - low) / 255, by planes. */
export function toPlanes({ width, height, channels, pixels }: Picture, low: number, high: number): Float32Array {
  const step = Math.fround((high - low) / 255), plane = width * height;
  const values = new Float32Array(channels * plane);
  for (let at = 0; at < values.length; at++) {
    const pixel = pixels[(at % plane) * channels + Math.floor(at / plane)];
    values[at] = Math.fround(pixel * step) + Math.fround(low);
  }
  return values;
}

/** As a canvas takes it. */
export function toImageData({ width, height, channels, pixels }: Picture): ImageData {
  const image = new ImageData(width, height);
  for (let at = 0; at < width * height; at++) {
    for (let color = 0; color < 3; color++) image.data[4 * at + color] = pixels[at * channels + (channels === 3 ? color : 0)];
    image.data[4 * at + 3] = 255;
  }
  return image;
}

/** Red, green and blue, or their luma (ITU-R BT.601) for one channel. */
export function fromImageData({ width, height, data }: ImageData, channels: number): Picture {
  const pixels = new Uint8Array(width * height * channels);
  for (let at = 0; at < width * height; at++) {
    const [red, green, blue] = data.subarray(4 * at, 4 * at + 3);
    if (channels === 3) pixels.set([red, green, blue], 3 * at);
    else pixels[at] = Math.floor((299 * red + 587 * green + 114 * blue + 500) / 1000);
  }
  return { width, height, channels, pixels };
}

/** Peak signal-to-noise ratio in dB, relative to 255, of two pictures of the same size; infinite where they are equal. */
export function psnr(one: Uint8Array, other: Uint8Array): number {
  if (one.length !== other.length) throw new GeneratorError("output", `${one.length} values, and the golden image has ${other.length}.`);
  let sum = 0;
  for (let at = 0; at < one.length; at++) sum += (one[at] - other[at]) ** 2;
  return 10 * Math.log10((255 ** 2 * one.length) / sum);
}
