// The page of `edgegen serve-bench` and of `--device browser`: says what it is, then asks the server what to do.
//
// It starts and ends Web Workers (page_worker.js), hands lines to them and their answers back, and shows how far things
// are. The token stands behind the # of the address, which browsers do not send; it opens the page once, for a key.

const workers = new Map();
const wasm = new Map(); // promises by file name: fetched once, for all workers
let key, ended = false;

const $ = (id) => document.getElementById(id);

async function ask(path, about = {}) {
  const headers = { "Edgegen-Key": key, ...about.headers };
  const got = await fetch(path, { ...about, headers, cache: "no-store" });
  if (!got.ok) throw new Error(await got.text());
  return got;
}

const post = async (path, body = "", more = {}) => (await ask(path, { method: "POST", body, ...more })).text();

async function gpu() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (!adapter) return { gpu: null, gpu_is_fallback: null };
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info ?? {};
  const name = [vendor, architecture, device, description].filter(Boolean).join(" ") || "a GPU without a name";
  return { gpu: name, gpu_is_fallback: isFallbackAdapter ?? adapter.isFallbackAdapter ?? null };
}

// The least difference of two readings: what this page's clock can tell apart.
function clockStep() {
  const start = performance.now();
  let least = Infinity, changes = 0, last = start;
  while (changes < 200 && last - start < 500) {
    const now = performance.now();
    if (now > last) {
      least = Math.min(least, now - last);
      changes += 1;
    }
    last = now;
  }
  return Number.isFinite(least) ? least : null;
}

async function about() {
  const names = ["model", "platformVersion", "architecture"];
  const hints = (await navigator.userAgentData?.getHighEntropyValues(names).catch(() => null)) ?? {};
  return {
    user_agent: navigator.userAgent,
    platform: [hints.platform, hints.platformVersion].filter(Boolean).join(" ") || null,
    architecture: hints.architecture || null,
    model: hints.model || null,
    threads: navigator.hardwareConcurrency ?? null,
    cross_origin_isolated: self.crossOriginIsolated === true,
    secure_context: self.isSecureContext === true,
    clock_step_ms: clockStep(),
    ...(await gpu()),
  };
}

function binary(name) {
  if (!wasm.has(name)) wasm.set(name, ask(`/ort/${name}`).then((got) => got.arrayBuffer()));
  return wasm.get(name);
}

const DO = {
  start({ worker, wasm, ...given }) {
    const made = new Worker("/page_worker.js", { type: "module" });
    workers.set(worker, made);
    made.onmessage = ({ data }) =>
      "line" in data ? post(`/said/${worker}`, data.line).catch(lost) : finish(worker, data.failed);
    made.onerror = (event) => finish(worker, event.message || "the Web Worker did not start");
    // Not waited for: a page that asks nothing more during a slow download would count as closed.
    binary(wasm).then((bytes) => made.postMessage({ ...given, key, wasm: bytes })).catch(lost);
  },
  line({ worker, line }) {
    workers.get(worker)?.postMessage(line);
  },
  end({ worker }) {
    workers.get(worker)?.terminate();
    workers.delete(worker);
  },
  show,
  async close({ text }) {
    ended = true;
    show({ state: text });
    stop();
    await post("/bye");
  },
};

function finish(worker, why) {
  DO.end({ worker });
  post(`/ended/${worker}`, why).catch(lost);
}

function stop() {
  for (const worker of workers.keys()) DO.end({ worker });
  $("bar").hidden = true;
}

// What edgegen sends is shown as text, never as HTML.
function show({ state, done, total, notes, head, rows }) {
  if (state !== undefined) $("state").textContent = state;
  if (total !== undefined) {
    $("bar").hidden = false;
    $("bar").max = total;
    $("bar").value = done;
  }
  if (notes !== undefined) $("notes").textContent = notes.join("\n");
  if (rows !== undefined) {
    $("results").hidden = false;
    $("results").tHead.replaceChildren(row(head, "th"));
    $("results").tBodies[0].replaceChildren(...rows.map((cells) => row(cells, "td")));
  }
}

function row(cells, kind) {
  const made = document.createElement("tr");
  made.append(...cells.map((text) => Object.assign(document.createElement(kind), { textContent: text })));
  return made;
}

function lost(e) {
  if (ended) return;
  ended = true;
  stop();
  show({ state: `Stopped: ${e.message}. edgegen ended, or cannot be reached any more.` });
}

async function main() {
  const facts = await about();
  const limits = facts.secure_context ? "" : "\nThis address is insecure to browsers: one thread, no WebGPU.";
  const clock = facts.clock_step_ms?.toPrecision(2) ?? "unknown";
  $("about").textContent = `${facts.user_agent}\n${facts.threads} threads, clock in steps of ${clock} ms${limits}`;
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/"); // used up: the address bar need not show it
  const opened = await fetch("/open", {
    method: "POST", headers: { "Edgegen-Key": token }, body: JSON.stringify(facts),
  });
  if (!opened.ok) return show({ state: await opened.text() });
  key = await opened.text();
  addEventListener("pagehide", () => ended || post("/bye", "", { keepalive: true }).catch(() => null));
  navigator.wakeLock?.request("screen").catch(() => null); // a dark screen freezes the page
  try {
    while (!ended) for (const { name, ...given } of await (await ask("/next")).json()) await DO[name](given);
  } catch (e) {
    lost(e);
  }
}

main();
