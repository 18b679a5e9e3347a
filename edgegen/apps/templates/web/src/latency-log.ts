import type { Generator } from "./generator";
import { sizes, type ModelFile } from "./manifest";
import type { Backend } from "./protocol";
import { summary, type SelfTest } from "./self-test";

const LONGEST = 1000; // pictures that are remembered: the newest

interface Times {
  file: ModelFile;
  loadMs: number;
  firstMs: number | null; // it is not among the others
  runsMs: number[];
}

/**
 * The latencies of one generator in edgegen's schema "edgegen.profile/1"; `edgegen report FILE` reads it.
 *
 * They are marked as noisy: a page in use shares its device, and nothing was repeated until a median settled.
 */
export class LatencyLog {
  private readonly times = new Map<string, Times>(); // by file: several students have one each

  /** Of all times: a generator may go on with another one. */
  readonly backend: Backend;

  constructor(private readonly generator: Generator) {
    this.backend = generator.backend;
  }

  /** Adds the time of the generator's last picture. A browser's clock is coarse, and no time is 0. */
  add(): void {
    const { lastFile, lastLoadMs, lastMs } = this.generator;
    const times = this.times.get(lastFile.file) ?? { file: lastFile, loadMs: lastLoadMs, firstMs: null, runsMs: [] };
    this.times.set(lastFile.file, times);
    const measured = Math.max(lastMs, 0.001);
    if (times.firstMs === null) times.firstMs = measured;
    else times.runsMs = [...times.runsMs, measured].slice(-LONGEST);
  }

  /** Of all pictures but the first; null until there are two. */
  get medianMs(): number | null {
    const all = [...this.times.values()].flatMap(({ runsMs }) => runsMs);
    return all.length ? quantile(all.toSorted((a, b) => a - b), 0.5) : null;
  }

  /** The file, null until the second picture. A failed self-test has no latency. */
  toJson(test: SelfTest | null): string | null {
    const measured = [...this.times.values()].filter(({ runsMs }) => runsMs.length);
    if (!measured.length) return null;
    return JSON.stringify({
      schema: "edgegen.profile/1",
      created: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      tool: `edgegen ${this.generator.manifest.tools.edgegen ?? ""}, latency log of an app`,
      device: "browser",
      target: { cpu: null, os: null, model: null, user_agent: navigator.userAgent, cross_origin_isolated: crossOriginIsolated },
      profile: "quick",
      others_cores: null,
      stolen_cores: null,
      results: measured.map((times) => this.result(times, test)),
    }, null, 2);
  }

  private result({ file, loadMs, firstMs, runsMs }: Times, test: SelfTest | null): object {
    const { artifact, threads } = this.generator;
    const failed = test !== null && !test.passed;
    const reason = failed ? summary(test) : "an app in use, not edgegen's protocol of measuring";
    const inputs = artifact.inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape: sizes(shape) }));
    return {
      artifact: { name: file.file, format: "onnx", sha256: file.sha256, nbytes: file.nbytes, scheme: artifact.scheme, inputs },
      config: { runtime: `onnxruntime-web ${RUNTIME_VERSION} on ${this.backend}`, threads_requested: threads, threads_actual: null },
      numerics: {
        reference: test ? "golden images of the bundle" : null, snr_db: null, max_abs: null,
        passed: test?.passed ?? null, reason: test ? summary(test) : "the self-test did not run",
      },
      cold: [{ load_ms: loadMs, first_ms: firstMs }],
      latency: failed ? null : latency(runsMs),
      verdict: { status: failed ? "failed" : "noisy", reasons: [reason] },
    };
  }
}

/** All runs are one block, of which the bootstrap over blocks gives the median itself as both ends. */
function latency(runsMs: number[]): object {
  const sorted = runsMs.toSorted((a, b) => a - b);
  const median = quantile(sorted, 0.5);
  return {
    blocks_ms: [runsMs], runs: sorted.length, p50_ms: median, p50_ci95_ms: [median, median],
    p90_ms: quantile(sorted, 0.9), min_ms: sorted[0], mean_ms: sorted.reduce((sum, each) => sum + each, 0) / sorted.length,
    converged: false,
  };
}

/** Linear between the two nearest ranks, as numpy does. */
function quantile(sorted: number[], share: number): number {
  const position = share * (sorted.length - 1);
  const below = Math.floor(position), above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}
