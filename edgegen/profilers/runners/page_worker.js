// Runs and times an ONNX file with onnxruntime-web in a Web Worker, told what to do as python_runner.py is.
//
// The first message is {backend, nonce, model, weights, key, wasm}, each further one a line of that program's commands; answers
// are its lines of JSON. What goes wrong is thrown: the page hears of it, and ends the worker. Files come from and go
// to /file/NAME of the server that gave this one.

const LIBRARIES = { wasm: "/ort/ort.wasm.bundle.min.mjs", webgpu: "/ort/ort.webgpu.bundle.min.mjs" };
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int64: BigInt64Array, int32: Int32Array,
  uint8: Uint8Array, int8: Int8Array, bool: Uint8Array,
};
const PROBES = 8, PROBE_STEPS = 5_000_000; // some 50 ms in all

let ort, session, inputs, start;
let number = 0;
let turn = Promise.resolve(); // commands are obeyed one after the other

self.onmessage = ({ data }) => {
  turn = turn.then(() => (start === undefined ? begin(data) : obey(data))).catch((e) => {
    self.postMessage({ failed: `${e?.stack ?? e}` });
  });
};

async function begin(given) {
  start = given;
  ort = await import(LIBRARIES[start.backend]);
  ort.env.logLevel = "fatal";
  ort.env.wasm.wasmBinary = start.wasm;
  answer("ready", { runtime: `onnxruntime-web ${ort.env.versions.web} on ${start.backend}` });
}

async function obey(line) {
  const [command, ...words] = line.trimEnd().split("\t");
  const facts = await COMMANDS[command](words);
  answer(command, { ...facts, peak_rss_bytes: null, cpu_ms: 0 }); // a page is told neither
}

function answer(event, facts) {
  self.postMessage({ line: JSON.stringify({ nonce: start.nonce, number, event, ...facts }) });
  number += 1;
}

const COMMANDS = { open, block, run, probe };

// The download is not timed; starting onnxruntime is, as a part of loading.
async function open([threads, ...given]) {
  const model = new Uint8Array(await file(start.model));
  const externalData = await Promise.all(
    start.weights.map(async (path) => ({ path: path.split("/").pop(), data: new Uint8Array(await file(path)) })),
  );
  const raw = await Promise.all(given.map(read));
  ort.env.wasm.numThreads = Number(threads);
  const began = performance.now();
  session = await ort.InferenceSession.create(model, { executionProviders: [start.backend], externalData });
  feed(raw);
  const loaded = performance.now();
  await session.run(inputs);
  const answered = performance.now();
  return { load_ms: loaded - began, first_ms: answered - loaded, threads: ort.env.wasm.numThreads };
}

async function block([leastRuns, leastMs, mostMs]) {
  const samples = [];
  const start = performance.now();
  let now = start;
  while (now - start < mostMs && (samples.length < leastRuns || now - start < leastMs)) {
    const began = performance.now();
    await session.run(inputs);
    now = performance.now();
    samples.push(now - began);
  }
  return { samples_ms: samples };
}

async function run([output, ...given]) {
  if (given.length) feed(await Promise.all(given.map(read)));
  const made = (await session.run(inputs))[session.outputNames[0]];
  const { buffer, byteOffset, byteLength } = await made.getData();
  await file(output, new Uint8Array(buffer, byteOffset, byteLength).slice());
  return {};
}

function probe() {
  let best = Infinity, value = 1;
  for (let round = 0; round < PROBES; round++) {
    const began = performance.now();
    value = 1;
    for (let step = 0; step < PROBE_STEPS; step++) value = (Math.imul(value, 1664525) + 1013904223) | 0;
    best = Math.min(best, performance.now() - began);
  }
  return { probe_ms: best, value: value >>> 0 };
}

async function read(given) {
  const colon = given.indexOf(":");
  const sizes = given.slice(0, colon).split("x").filter((size) => size); // none of a scalar
  return { shape: sizes.map(Number), bytes: await file(given.slice(colon + 1)) };
}

function feed(raw) {
  inputs = {};
  raw.forEach(({ shape, bytes }, index) => {
    const { name, type } = session.inputMetadata[index];
    if (!(type in ARRAYS)) throw new Error(`the input ${name} is of ${type}, which this page cannot make`);
    inputs[name] = new ort.Tensor(type, new ARRAYS[type](bytes), shape);
  });
}

async function file(name, body) {
  const about = { headers: { "Edgegen-Key": start.key }, ...(body && { method: "POST", body }) };
  const got = await fetch(`/file/${encodeURIComponent(name)}`, about);
  if (!got.ok) throw new Error(`${name}: ${await got.text()}`);
  return got.arrayBuffer();
}
