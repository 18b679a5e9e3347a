import { toImageData, type Picture } from "./picture";

const HEADER = 33; // signature and IHDR

/** How a picture was made: `edgegen inspect PICTURE` shows it, `edgegen sample --like PICTURE` makes it again. */
export interface Recipe {
  artifact: string;
  seed: number;
  label: number | null;
  edgegen: string;
  /** SHA-256 of the pixels that were given, by the input's name. */
  inputs: Record<string, string>;
}

/** A PNG that carries its recipe in a text chunk. */
export async function png(picture: Picture, recipe: Recipe): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d")!.putImageData(toImageData(picture), 0, 0);
  const plain = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!plain) throw new Error("this browser writes no PNG");
  const text = chunk("edgegen", JSON.stringify({ schema: "edgegen.picture/1", count: 1, ...recipe }));
  return new Blob([plain.slice(0, HEADER), text, plain.slice(HEADER)], { type: "image/png" });
}

/** iTXt, uncompressed, without language: length, type, content, CRC of the last two. */
function chunk(keyword: string, text: string): Uint8Array<ArrayBuffer> {
  const body = new TextEncoder().encode(`iTXt${keyword}\0\0\0\0\0${text}`);
  const bytes = new Uint8Array(body.length + 8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length - 4);
  bytes.set(body, 4);
  view.setUint32(body.length + 4, crc32(body));
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
