import type { Picture } from "./picture";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/** How a picture was made: `edgegen inspect PICTURE` shows it, `edgegen sample --like PICTURE` makes it again. */
export interface Recipe {
  artifact: string;
  seed: number;
  label: number | null;
  prompt: string | null;
  edgegen: string;
  /** SHA-256 of the pixels that were given, by the input's name. */
  inputs: Record<string, string>;
}

/** A PNG, gray or RGB as the picture is, that carries its recipe in a text chunk. */
export async function png({ width, height, channels, pixels }: Picture, recipe: Recipe): Promise<Blob> {
  const header = new Uint8Array(13); // 8 bits, gray or RGB, no interlacing
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, channels === 3 ? 2 : 0], 8);
  const line = width * channels;
  const lines = new Uint8Array(height * (line + 1)); // each begins with 0: no filter
  for (let y = 0; y < height; y++) lines.set(pixels.subarray(y * line, (y + 1) * line), y * (line + 1) + 1);
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const text = `edgegen\0\0\0\0\0${JSON.stringify({ schema: "edgegen.picture/1", count: 1, ...recipe })}`;
  const chunks = [chunk("IHDR", header), chunk("iTXt", new TextEncoder().encode(text)), chunk("IDAT", data), chunk("IEND")];
  return new Blob([SIGNATURE, ...chunks], { type: "image/png" });
}

/** Length, type, content, CRC of the last two. */
function chunk(type: string, content: Uint8Array = new Uint8Array()): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc32(bytes.subarray(4, content.length + 8)));
  return bytes;
}

function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
