// Answers the requests of tests/noise_programs.py, in node and in a browser.
import { normal, philox4x32 } from "../../edgegen/apps/templates/web/src/noise.js";

const RUNS = 300;

export function answers(requests: string): Uint8Array {
  const parts = requests.trim().split("\n").map((line) => answer(line.split(" ")));
  const all = new Uint8Array(parts.reduce((bytes, part) => bytes + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    all.set(new Uint8Array(part.buffer), at);
    at += part.byteLength;
  }
  return all;
}

function answer([what, ...given]: string[]): Uint32Array | Float32Array {
  if (what === "philox") {
    const [c0, c1, c2, c3, key0, key1] = given.map(Number) as [number, number, number, number, number, number];
    const words = Uint32Array.of(c0, c1, c2, c3);
    philox4x32(words, key0, key1);
    return words;
  }
  const [seed, first, count, size] = given as [string, string, string, string];
  const draw = () => normal(BigInt(seed), Number(first), Number(count), Number(size));
  if (what === "normal") return draw();
  let fastest = Infinity;
  for (let run = 0; run < RUNS; run++) {
    const began = performance.now();
    draw();
    fastest = Math.min(fastest, performance.now() - began);
  }
  return Float32Array.of(fastest);
}
