// The page: what is chosen becomes a grid of pictures.

import { Bundle, sha256 } from "./bundle";
import { BUNDLE, MODELS } from "./config";
import { GeneratorError } from "./errors";
import { Generator } from "./generator";
import { isolate } from "./isolation";
import { LatencyLog } from "./latency-log";
import { fileOf, inputOf, wholeSize } from "./manifest";
import { fromImageData, toImageData, type Picture } from "./picture";
import { png } from "./png";
import type { Backend } from "./protocol";
import { goldenImages, selfTest, summary, type SelfTest } from "./self-test";

const COUNT = 16; // pictures of the seeds from the one in the field
const COUNT_OF_PROMPT = 4; // such models take longer
const SMALL = 128; // pixels; smaller pictures are shown with sharp ones
const ALL = "all"; // classes in turn
const MOST_CHIPS = 24; // more classes are a list
const DOWNLOAD = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 4v11M7 11l5 5 5-5M5 20h14"/></svg>';

const element = <Kind extends HTMLElement>(id: string): Kind => document.getElementById(id) as Kind;
const promptField = element<HTMLTextAreaElement>("prompt");
const seedField = element<HTMLInputElement>("seed");
const modelField = element<HTMLSelectElement>("model");
const makeButton = element<HTMLButtonElement>("make");
const grid = element("pictures");
const address = new URL(BUNDLE, document.baseURI).href;
const choices = new URLSearchParams(location.search); // ?backend=wasm|webgpu, ?threads=N: for trying things out

let generator: Generator | undefined;
let oneThread: string | null = null; // why there is no second one
let log: LatencyLog;
let test: SelfTest | null = null;
let given: Picture | null = null;
let turn = 0; // of the newest grid; older ones stop

start().catch(fail);

async function start(): Promise<void> {
  oneThread = await isolate();
  for (const file of MODELS) modelField.add(new Option(file, file));
  element("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    makeAll().catch(fail);
  });
  promptField.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    makeAll().catch(fail);
  });
  element("dice").addEventListener("click", () => {
    seedField.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    makeAll().catch(fail);
  });
  element("classes").addEventListener("change", () => makeAll().catch(fail));
  modelField.addEventListener("change", () => open().catch(fail));
  element<HTMLInputElement>("image").addEventListener("change", ({ target }) => choose((target as HTMLInputElement).files?.[0]).catch(fail));
  element("run-self-test").addEventListener("click", () => check().catch(fail));
  element("save-log").addEventListener("click", () => {
    const text = log.toJson(test);
    if (text) save(new Blob([text], { type: "application/json" }), "latency.json");
  });
  await open();
  if (import.meta.env.DEV || location.hash === "#self-test") await check();
}

/** Loads the chosen model and makes the first pictures with it. */
async function open(): Promise<void> {
  turn++;
  element("error").hidden = true;
  busy(true);
  show("Loading …");
  generator?.close();
  generator = undefined;
  const threads = Number(choices.get("threads")) || undefined;
  const loaded = await Generator.load({ bundle: BUNDLE, file: modelField.value, backend: backend(), threads });
  generator = loaded;
  forget(loaded);
  await showInputs(loaded);
  reveal();
  await makeAll();
}

/** What was measured and tested was another model's, or another runtime's. */
function forget(model: Generator): void {
  log = new LatencyLog(model);
  test = null;
  showSelfTest("Does this device make the pictures that it should?", "");
  element("notes").textContent = [...model.notes, ...(oneThread && model.backend === "wasm" ? [oneThread] : [])].join(" ");
}

/** All at once, so that nothing moves while the first model loads. */
function reveal(): void {
  element("main").classList.remove("starting");
}

function backend(): Backend | undefined {
  const wanted = choices.get("backend");
  return wanted === "wasm" || wanted === "webgpu" ? wanted : undefined;
}

/** The fields that the model has inputs for. */
async function showInputs(model: Generator): Promise<void> {
  const { manifest, imageSize } = model;
  for (const option of modelField.options) {
    const row = manifest.artifacts.find(({ file }) => file === option.value);
    if (row) option.text = `${row.scheme}, ${size(wholeSize(manifest, row))}`;
  }
  element("model-field").hidden = MODELS.length < 2;
  element("prompt-field").hidden = !model.takesPrompt;
  if (!promptField.defaultValue) promptField.defaultValue = manifest.golden.prompts?.[0]?.text ?? "";
  element("seed-field").hidden = !model.takesNoise;
  element("image-field").hidden = !imageSize;
  element("class-field").hidden = model.classes < 2;
  if (!element("classes").childElementCount) {
    const names = Array.from({ length: model.classes }, (_, label) => manifest.class_names[label] ?? String(label));
    const all: Choice[] = [["All", ALL], ...names.map((name, label): Choice => [name, String(label)])];
    element("classes").append(...(names.length > MOST_CHIPS ? list(all) : chips(all)));
  }
  makeButton.textContent = model.takesNoise ? "Make pictures" : "Make picture";
  if (imageSize && !given) {
    given = (await goldenImages(await Bundle.open(address), model))?.[0] ?? null;
    if (given) draw(element<HTMLCanvasElement>("given"), given);
  }
}

type Choice = [text: string, value: string];

/** The first is chosen, here and in a list. */
function chips(classes: Choice[]): HTMLElement[] {
  return classes.map(([text, value], at) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "class", value, checked: at === 0 });
    label.className = "chip";
    label.append(input, Object.assign(document.createElement("span"), { textContent: text }));
    return label;
  });
}

function list(classes: Choice[]): HTMLElement[] {
  const select = Object.assign(document.createElement("select"), { name: "class", ariaLabel: "Class" });
  for (const [text, value] of classes) select.add(new Option(text, value));
  return [select];
}

/** The picture in a file, cut to the shape that the model takes. */
async function choose(file: File | undefined): Promise<void> {
  const wanted = generator?.imageSize;
  if (!file || !wanted) return;
  const bitmap = await createImageBitmap(file).catch((cause) => {
    throw new GeneratorError("input", `${file.name} is no picture that this browser reads.`, { cause });
  });
  const { width, height, channels } = wanted;
  const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const wide = bitmap.width * scale, high = bitmap.height * scale;
  canvas.imageSmoothingQuality = "high";
  canvas.fillStyle = "white"; // below what is transparent
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  given = fromImageData(canvas.getImageData(0, 0, width, height), channels);
  draw(element<HTMLCanvasElement>("given"), given);
  await makeAll();
}

async function makeAll(): Promise<void> {
  if (!generator || !element<HTMLFormElement>("controls").reportValidity()) return;
  const model = generator, mine = ++turn;
  const first = Number(seedField.value);
  const count = !model.takesNoise ? 1 : model.takesPrompt ? COUNT_OF_PROMPT : COUNT;
  if (!Number.isSafeInteger(first + count)) throw new GeneratorError("input", `The seed ${seedField.value} is too large; the largest is ${Number.MAX_SAFE_INTEGER - count}.`);
  element("error").hidden = true;
  busy(true);
  grid.classList.toggle("single", count === 1);
  grid.classList.toggle("large", model.manifest.golden.shape[2] >= SMALL);
  while (grid.childElementCount > count) grid.lastElementChild?.remove();
  while (grid.childElementCount < count) grid.append(frame(model));
  for (const figure of grid.children) figure.classList.add("waiting");
  const chosen = new FormData(element<HTMLFormElement>("controls")).get("class") ?? ALL;
  const prompt = model.takesPrompt ? promptField.value : null;
  for (let at = 0; at < count; at++) {
    const label = model.classes === 0 ? null : chosen === ALL ? at % model.classes : Number(chosen);
    const image = given;
    const picture = await model.generate(first + at, { label, image, prompt }).catch((error) => {
      if (mine === turn) throw error; // another model was chosen meanwhile, and this one is closed
    });
    if (mine !== turn || !picture) return;
    performance.mark("picture");
    if (model.backend !== log.backend) forget(model); // WebGPU stopped
    log.add();
    fill(grid.children[at] as HTMLElement, picture, { seed: first + at, label, image, prompt });
    show(facts(model));
  }
  busy(false);
}

function facts({ backend, threads, loadMs, lastMs, manifest, artifact }: Generator): string {
  const where = backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
  return `${where} · ${(log.medianMs ?? lastMs).toFixed(1)} ms a picture · loaded in ${loadMs.toFixed(0)} ms · ${size(wholeSize(manifest, artifact))}`;
}

/** In the shape of the pictures to come, and with as many lines as they have. */
function frame({ manifest, classes, takesNoise }: Generator): HTMLElement {
  const figure = document.createElement("figure");
  const [, height, width] = manifest.golden.shape;
  const lines = Array<string>(Math.max(1, Number(classes > 0) + Number(takesNoise))).fill("\xa0");
  figure.innerHTML = `<button type="button" disabled><canvas></canvas>${DOWNLOAD}</button><figcaption></figcaption>`;
  figure.querySelector("figcaption")!.append(...lines.map(line));
  figure.querySelector("button")!.style.aspectRatio = `${width} / ${height}`;
  return figure;
}

function line(textContent: string): HTMLElement {
  return Object.assign(document.createElement("span"), { textContent });
}

function fill(figure: HTMLElement, picture: Picture, made: { seed: number; label: number | null; image: Picture | null; prompt: string | null }): void {
  const { manifest, artifact, takesNoise } = generator!;
  const { seed, label, image, prompt } = made;
  const name = label === null ? "" : (manifest.class_names[label] ?? `class ${label}`);
  const parts = [name, takesNoise ? `seed ${seed}` : ""].filter(Boolean);
  const title = parts.join(" · ");
  const canvas = figure.querySelector("canvas")!;
  draw(canvas, picture);
  const lines = parts.length ? parts : [`${picture.width} x ${picture.height}`];
  figure.querySelector("figcaption")!.replaceChildren(...lines.map(line));
  const button = figure.querySelector("button")!;
  button.disabled = false;
  button.title = button.ariaLabel = `Save ${title || "the picture"} as PNG`;
  button.onclick = async () => {
    const input = inputOf(artifact, "image");
    const inputs: Record<string, string> = image && input ? { [input.name]: await sha256(image.pixels) } : {};
    const recipe = { artifact: fileOf(artifact, label).sha256, seed, label, prompt, edgegen: manifest.tools.edgegen ?? "unknown", inputs };
    save(await png(picture, recipe), `${[manifest.name, label, takesNoise ? seed : null].filter((part) => part !== null).join("-")}.png`);
  };
  figure.classList.remove("waiting");
}

function draw(canvas: HTMLCanvasElement, picture: Picture): void {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.classList.toggle("pixels", Math.max(picture.width, picture.height) < SMALL);
  // Kept out of the GPU, with which pictures would be lost.
  canvas.getContext("2d", { willReadFrequently: true })!.putImageData(toImageData(picture), 0, 0);
}

async function check(): Promise<void> {
  if (!generator) return;
  const model = generator;
  showSelfTest("Self-test …", "");
  const result = await selfTest(address, model);
  if (model.backend !== log.backend) { // WebGPU stopped in the middle of it
    forget(model);
    return check();
  }
  test = result;
  showSelfTest(summary(test), test.passed ? "passed" : "failed");
}

function showSelfTest(text: string, state: string): void {
  Object.assign(element("self-test"), { textContent: text, className: state });
}

function show(text: string): void {
  element("status").textContent = text;
}

function busy(is: boolean): void {
  grid.setAttribute("aria-busy", String(is));
  makeButton.disabled = generator === undefined;
  for (const id of ["run-self-test", "save-log"]) element<HTMLButtonElement>(id).disabled = is;
}

function fail(error: unknown): void {
  const message = error instanceof GeneratorError ? error.message : `Something went wrong: ${error instanceof Error ? error.message : error}`;
  reveal();
  element("error").textContent = message;
  element("error").hidden = false;
  show("");
  grid.setAttribute("aria-busy", "false");
}

function save(content: Blob, name: string): void {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function size(nbytes: number): string {
  return nbytes < 1e6 ? `${(nbytes / 1e3).toFixed(0)} kB` : `${(nbytes / 1e6).toFixed(1)} MB`;
}
