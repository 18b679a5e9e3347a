// Makes the page work offline, and adds the headers that threads need where a host does not send them.

const PREFIX = `edgegen ${self.registration.scope} `; // caches are shared by all apps of an origin
const CACHE = PREFIX + "__VERSION__";
const FILES = __FILES__;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event));
});

async function install() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((path) => new Request(new URL(path, self.registration.scope), { cache: "reload" })));
  // Not only once all tabs are closed: until then the old manifest would meet the host's new models.
  await self.skipWaiting();
}

async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

/** From the cache, else from the host; a request with `cache: "reload"` replaces what the cache has. */
async function answer(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  const address = new URL(request.url);
  const key = address.origin + address.pathname.replace(/\/index\.html$/, "/");
  const again = request.cache === "reload" && request.mode !== "navigate";
  const kept = again ? undefined : await cache.match(key);
  if (kept) return isolated(kept);
  const response = await fetch(request);
  // Hosts like to answer with a page where a file is missing. A failed write (a full disk) costs offline use alone.
  const isPage = response.headers.get("Content-Type")?.startsWith("text/html");
  if (response.status === 200 && (!isPage || request.mode === "navigate")) {
    event.waitUntil(cache.put(key, response.clone()).catch(() => {}));
  }
  return isolated(response);
}

function isolated(response) {
  if (response.type === "opaqueredirect" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  const body = [204, 205, 304].includes(response.status) ? null : response.body;
  return new Response(body, { status: response.status, statusText: response.statusText, headers });
}
