// Portable seeded noise: the numbers of edgegen's `edgegen.noise.normal`, as the manual's page "Noise" specifies them.

const ROUNDS = 10;
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;
const TWO_32 = 2 ** 32;

/**
 * Standard normal noise for the samples `first` .. `first + count - 1` of a seed, `size` values each, one after the other.
 * Sample i depends on the seed, i and `size` only.
 *
 * @param seed whole, 0 to 2^64 - 1; above Number.MAX_SAFE_INTEGER as a bigint
 * @param size values of one sample: channels * height * width
 * @throws RangeError for a seed, index, count or size that is not whole, negative or too large
 */
export function normal(seed: number | bigint, first: number, count: number, size: number): Float32Array {
  const [key0, key1] = keyOf(seed);
  whole(first, "first");
  whole(count, "count");
  whole(size, "size", 4 * TWO_32);
  whole(first + count, "first + count");
  const out = new Float32Array(count * size);
  const words = new Uint32Array(4);
  for (let sample = 0; sample < count; sample++) {
    const index = first + sample;
    const values = out.subarray(sample * size, (sample + 1) * size);
    for (let at = 0; at < size; at += 4) {
      words[0] = at / 4;
      words[1] = 0;
      words[2] = index;
      words[3] = Math.floor(index / TWO_32);
      philox4x32(words, key0, key1);
      pair(words[0], words[1], values, at);
      pair(words[2], words[3], values, at + 2);
    }
  }
  return out;
}

/** Ten rounds of Philox4x32: the four words of a counter become four random words, in place. */
export function philox4x32(words: Uint32Array, key0: number, key1: number): void {
  let c0 = words[0] | 0, c1 = words[1] | 0, c2 = words[2] | 0, c3 = words[3] | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = highProduct(MULTIPLIERS[0], c0);
    const low0 = Math.imul(MULTIPLIERS[0], c0);
    const high1 = highProduct(MULTIPLIERS[1], c2);
    const low1 = Math.imul(MULTIPLIERS[1], c2);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 = (key0 + WEYL[0]) | 0;
    key1 = (key1 + WEYL[1]) | 0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/** Box-Muller in float64; what lies beyond the end of `values` is dropped. */
function pair(word0: number, word1: number, values: Float32Array, at: number): void {
  const radius = Math.sqrt(-2 * Math.log((word0 + 0.5) / TWO_32));
  const angle = 2 * Math.PI * ((word1 + 0.5) / TWO_32);
  values[at] = radius * Math.cos(angle);
  values[at + 1] = radius * Math.sin(angle);
}

/** The upper 32 of the 64 bits of a product: a double holds 53, so by halves. */
function highProduct(a: number, b: number): number {
  const aHigh = a >>> 16, aLow = a & 0xffff;
  const bHigh = b >>> 16, bLow = b & 0xffff;
  const middle = aHigh * bLow + (Math.imul(aLow, bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (Math.imul(aHigh, bHigh) + (middle >>> 16) + (carry >>> 16)) | 0;
}

function keyOf(seed: number | bigint): [number, number] {
  if (typeof seed === "number") whole(seed, "seed");
  const bits = BigInt(seed);
  if (bits !== BigInt.asUintN(64, bits)) throw new RangeError(`seed is ${seed}; it must be 0 to 2^64 - 1`);
  return [Number(bits & 0xffffffffn), Number(bits >> 32n)];
}

function whole(value: number, name: string, most = Number.MAX_SAFE_INTEGER): void {
  if (!Number.isSafeInteger(value) || value < 0 || value > most) {
    throw new RangeError(`${name} is ${value}; it must be a whole number from 0 to ${most}`);
  }
}
