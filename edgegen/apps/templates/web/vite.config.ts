import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { defaultClientConditions, defineConfig, type Plugin } from "vite";

const versions = JSON.parse(readFileSync("package.json", "utf8")).dependencies;

// Threads need a page that is cross-origin isolated. The dev server says so itself; in a build the service worker does.
const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

export default defineConfig({
  base: "./", // any folder of any host
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  define: { RUNTIME_VERSION: JSON.stringify(versions["onnxruntime-web"]) },
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  server: { headers },
  worker: { format: "es", rolldownOptions: { output: { assetFileNames: assetName } } },
  // Only to say their size, Vite would compress the runtimes: half of the time of a build.
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: false },
  plugins: [serviceWorker()],
});

/** Plain hosts do not know .mjs and would serve it as no script. */
function assetName({ names }: { names: string[] }): string {
  return names[0]?.endsWith(".mjs") ? "assets/[name]-[hash].js" : "assets/[name]-[hash][extname]";
}

/**
 * Writes sw.js with the files that it keeps from the start: all but models and runtimes, which it keeps once they are
 * used. Any change of a file gives another version, and so another cache.
 */
function serviceWorker(): Plugin {
  return {
    name: "service-worker",
    apply: "build",
    enforce: "post",
    generateBundle(_, output) {
      const hash = createHash("sha256");
      const files = readdirSync("public", { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`.replaceAll("\\", "/"))
        .sort();
      for (const path of files) hash.update(path).update(readFileSync(path));
      const built = Object.keys(output).sort();
      hash.update(built.join("\n"));
      const html = output["index.html"];
      if (html?.type === "asset") hash.update(html.source);
      const kept = ["./", ...built.filter((path) => path !== "index.html"), ...files.map((path) => path.slice("public/".length))];
      const source = readFileSync("src/service-worker.js", "utf8")
        .replace("__VERSION__", hash.digest("hex").slice(0, 16))
        .replace("__FILES__", JSON.stringify(kept.filter((path) => !/\.(wasm|onnx|onnx\.data|map)$|\/tokenizer\.json$/.test(path)).map(encodeURI)));
      this.emitFile({ type: "asset", fileName: "sw.js", source });
    },
  };
}
