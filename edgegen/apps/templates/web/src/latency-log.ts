import type { Generator } from "./generator";
import { sizes } from "./manifest";
import { summary, type SelfTest } from "./self-test";

const LONGEST = 1000; // pictures that are remembered: the newest

/**
 * The latencies of one generator in edgegen's schema "edgegen.profile/1"; `edgegen report FILE` reads it.
 *
 * They are marked as noisy: a page in use shares its device, and nothing was repeated until a median settled.
 */
export class LatencyLog {
  private firstMs: number | null = null; // it is not among the others
  private runsMs: number[] = [];

  constructor(private readonly generator: Generator) {}

  /** Adds the time of one picture. A browser's clock is coarse, and no time is 0. */
  add(ms: number): void {
    const measured = Math.max(ms, 0.001);
    if (this.firstMs === null) this.firstMs = measured;
    else this.runsMs = [...this.runsMs, measured].slice(-LONGEST);
  }

  /** Of all pictures but the first; null until there are two. */
  get medianMs(): number | null {
    return this.runsMs.length ? quantile(this.runsMs.toSorted((a, b) => a - b), 0.5) : null;
  }

  /** The file, null until the second picture. A failed self-test has no latency. */
  toJson(test: SelfTest | null): string | null {
    if (!this.runsMs.length) return null;
    const { artifact, backend, threads, loadMs, manifest } = this.generator;
    const failed = test !== null && !test.passed;
    const reason = failed ? summary(test) : "an app in use, not edgegen's protocol of measuring";
    const inputs = artifact.inputs.map(({ name, dtype, shape }) => ({ name, dtype, shape: sizes(shape) }));
    const result = {
      artifact: { name: artifact.file, format: "onnx", sha256: artifact.sha256, nbytes: artifact.nbytes, scheme: artifact.scheme, inputs },
      config: { runtime: `onnxruntime-web ${RUNTIME_VERSION} on ${backend}`, threads_requested: threads, threads_actual: null },
      numerics: {
        reference: test ? "golden images of the bundle" : null, snr_db: null, max_abs: null,
        passed: test?.passed ?? null, reason: test ? summary(test) : "the self-test did not run",
      },
      cold: [{ load_ms: loadMs, first_ms: this.firstMs }],
      latency: failed ? null : this.latency(),
      verdict: { status: failed ? "failed" : "noisy", reasons: [reason] },
    };
    return JSON.stringify({
      schema: "edgegen.profile/1",
      created: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      tool: `edgegen ${manifest.tools.edgegen ?? ""}, latency log of an app`,
      device: "browser",
      target: { cpu: null, os: null, model: null, user_agent: navigator.userAgent, cross_origin_isolated: crossOriginIsolated },
      profile: "quick",
      others_cores: null,
      stolen_cores: null,
      results: [result],
    }, null, 2);
  }

  /** All runs are one block, of which the bootstrap over blocks gives the median itself as both ends. */
  private latency(): object {
    const sorted = this.runsMs.toSorted((a, b) => a - b);
    const median = quantile(sorted, 0.5);
    return {
      blocks_ms: [this.runsMs], runs: sorted.length, p50_ms: median, p50_ci95_ms: [median, median],
      p90_ms: quantile(sorted, 0.9), min_ms: sorted[0], mean_ms: sorted.reduce((sum, each) => sum + each, 0) / sorted.length,
      converged: false,
    };
  }
}

/** Linear between the two nearest ranks, as numpy does. */
function quantile(sorted: number[], share: number): number {
  const position = share * (sorted.length - 1);
  const below = Math.floor(position), above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}
