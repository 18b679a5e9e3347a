// Offline use and threads: both come from the service worker, which must have the page before anything is loaded.

const RELOADED = "edgegen-reloaded";
const PATIENCE_MS = 8000;

/** Why the page is not cross-origin isolated, so that WebAssembly has one thread; null where it is. May load the page again, once. */
export async function isolate(): Promise<string | null> {
  const reason = import.meta.env.DEV ? null : await serve();
  if (crossOriginIsolated) {
    sessionStorage.removeItem(RELOADED);
    return null;
  }
  if (!reason && !import.meta.env.DEV && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "yes");
    location.reload();
    await new Promise(() => {}); // the page ends here
  }
  return `One thread only: the host sends no COOP and COEP headers, and ${reason ?? "the browser does not take them from the service worker"}.`;
}

/** Why there is no service worker; null where it answers the page's requests from now on. */
async function serve(): Promise<string | null> {
  if (!("serviceWorker" in navigator)) return "this browser has no service worker here, which could add them";
  const workers = navigator.serviceWorker;
  try {
    const late = new Promise<never>((_, reject) => setTimeout(reject, PATIENCE_MS, new Error("it takes too long")));
    await Promise.race([workers.register(new URL("sw.js", document.baseURI)).then(() => workers.ready), late]);
  } catch (error) {
    return `the service worker, which could add them, did not start (${error instanceof Error ? error.message : error})`;
  }
  // A new worker claims the page; one that the user went around by a hard reload does not.
  if (!workers.controller) {
    await Promise.race([
      new Promise((resolve) => workers.addEventListener("controllerchange", resolve, { once: true })),
      new Promise((resolve) => setTimeout(resolve, 500)),
    ]);
  }
  return null;
}
