"""Bench of the training methods: which gives the best one-step generator of one size, for one number of images?

    python examples/bench_methods.py [--quick] [--json] [--data digits|fashion] [--table NAME ...] [--method NAME ...]
                                     [--seed N ...] [--memory] [--into FILE.json] [--again] [--runs DIR]
                                     [--fashion FILE.npz]

Equal conditions: of a data set and a seed, one teacher, one set of its paths, one student (at most a third of the
teacher's parameters), and the same number of training images for the student, whatever the method does with them. A row
is a way from fresh weights to one step: the tables [slim], [distill] and, for some, [finish] of a recipe. Figures are
those of the run's own stage `evaluate`, means and standard deviations over the training seeds: one-step fd_local, its
mean ratio to the teacher's best of the same seed, fd_random in features that no method trains on, and others. Minutes
are those of the student's stages; they are wrong where another program ran beside them. `networks` are those in memory
beside the student while it trains, or has trained before; MB are the most that the process holds meanwhile (torch and
the images with it), which --memory measures in a few steps of each way.

Tables: `methods`; `slimflow`, what its parts are worth; `initialisation`, whether a student of the teacher's own size
that learns from images alone needs the teacher's score, or its weights (the claim of arXiv:2502.08005); `guidance`,
students of a teacher with and without classifier-free guidance. A guided row is compared with its guided teacher, whose
fd_local is another one, so look at fd_local itself, precision and recall there. `students`: one network, or two of half
its size, each for half of the classes.

Rows are kept in --into (default: examples/bench_methods.json) and are not made again without --again, on no machine;
runs are in --runs: the same command goes on where it was broken off. `--quick`: digits, one seed, three methods, a
fifth of the steps.
"""

import argparse
import itertools
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgegen.models.load import load as load_generator
from edgegen.pipeline.method_table import BENCH, beside
from edgegen.pipeline.methods import needs_pairs
from edgegen.pipeline.run import run_recipe
from edgegen.profilers.devices.host_info import probe
from edgegen.recipe import parse
from edgegen.support.progress import progress
from edgegen.support.storage import read_json, write_json

HERE = Path(__file__).parent
ROWS = "bench_methods.json"
PLAIN = "pair_regression"
SHOWN = ("fd_random", "precision", "recall", "coverage", "class_distance", "copied")
FEW_STEPS = {"slim": 12, "distill": 12, "finish": 6}  # for the memory that they take
QUICK = (PLAIN, "slimflow", "cmt")
Tables = dict[str, dict[str, Any]]

DATA: Mapping[str, Tables] = {
    "digits": {
        "data": {"source": "digits", "holdout": 0.25},
        "teacher": {"steps": 1300, "learning_rate": 2e-3, "model": {"channels": [24, 64, 128], "blocks": 1}},
        "pairs": {"count": 1536, "steps": 12, "knots": 4},
        "slim": {"keep": 0.33, "steps": 1100},
        "distill": {"steps": 800},
    },
    "fashion": {
        "data": {"holdout": 0.1},
        "teacher": {"steps": 4000, "learning_rate": 1e-3, "model": {"channels": [16, 48, 96], "blocks": 1}},
        "pairs": {"count": 4096, "steps": 12, "knots": 4},
        "slim": {"keep": 0.25, "steps": 1200},
        "distill": {"steps": 800},
        "evaluate": {"samples": 2000, "steps": [1], "seeds": 2},
    },
}
# Of a data set, keys of a method: with the student at 2e-3 it collapses on Fashion-MNIST (recall 0.18, here 0.67).
KEYS = {"fashion": {"distribution_matching": {"learning_rate": 5e-4, "fake_learning_rate": 2e-3}}}
LOOP = {"slim": {"learning_rate": 2e-3, "decay": "none"}, "distill": {"learning_rate": 2e-3}}
# Of each data set, the target of the best one-step fd_local over the teacher's, and the student's share of parameters.
GOALS = {"digits": (1.2, 1 / 3), "fashion": (1.3, 1 / 4)}


@dataclass(frozen=True)
class Way:
    """From fresh weights to one step: the methods of the stages, with their keys; `finish` gets a part of the steps.

    `whole`: the student has the teacher's own size, and `distill` all steps. `students`: so many, which share its size
    and the classes. `teacher`: further keys of its table.
    """

    slim: dict[str, Any]
    distill: dict[str, Any]
    finish: dict[str, Any] | None = None
    whole: bool = False
    students: int = 1
    teacher: Mapping[str, Any] = field(default_factory=dict)


REGRESSION = {"method": "pair_regression"}
REFLOW = {"method": "annealing_reflow"}
GUIDED = {"method": "flow_guided_distillation"}
FLOW = {"method": "flow_matching"}
FINISH_SHARE = 0.25  # of all steps, where there is a finish
MATCHING = {"method": "distribution_matching"}
ADVERSARIAL = {"method": "adversarial", "learning_rate": 2e-4}
PROGRESSIVE = {"method": "progressive"}
WAYS: Mapping[str, Way] = {
    PLAIN: Way(REGRESSION, REGRESSION),
    "slimflow": Way(REFLOW, GUIDED),
    "annealing_reflow, distribution_matching kl": Way(REFLOW, MATCHING),
    "annealing_reflow, distribution_matching kl, init = teacher": Way({**REFLOW, "init": "teacher"}, MATCHING),
    "pair_regression, init = teacher": Way({**REGRESSION, "init": "teacher"}, REGRESSION),
    "slimflow, then adversarial": Way(REFLOW, GUIDED, ADVERSARIAL),
    "slimflow, then density_ratio": Way(REFLOW, GUIDED, {"method": "density_ratio", "learning_rate": 2e-4}),
    "pair_regression, then adversarial": Way(REGRESSION, REGRESSION, ADVERSARIAL),
    "pair_regression, init = teacher, then adversarial": Way(
        {**REGRESSION, "init": "teacher"}, REGRESSION, ADVERSARIAL
    ),
    "slimflow, init = teacher, then adversarial": Way({**REFLOW, "init": "teacher"}, GUIDED, ADVERSARIAL),
    "slimflow, then distribution_matching kl": Way(REFLOW, GUIDED, {**MATCHING, "learning_rate": 1e-3}),
    "cmt, progressive": Way({"method": "cmt"}, PROGRESSIVE),
    "annealing_reflow, progressive": Way(REFLOW, PROGRESSIVE),
    "cmt": Way({"method": "cmt"}, {"method": "cmt"}),
    "annealing_reflow, distribution_matching fisher": Way(REFLOW, {**MATCHING, "divergence": "fisher"}),
    "annealing_reflow, distribution_matching score_distance": Way(REFLOW, {**MATCHING, "divergence": "score_distance"}),
    "annealing_reflow, distribution_matching f": Way(REFLOW, {**MATCHING, "divergence": "f"}),
    "annealing_reflow, density_ratio": Way(REFLOW, {"method": "density_ratio"}),
    "cmt, consistency_tuning": Way({"method": "cmt"}, {"method": "consistency_tuning"}),
    "cmt, consistency_tuning by the teacher": Way(
        {"method": "cmt"}, {"method": "consistency_tuning", "teacher_step": "heun", "q": 4.0, "stages": 1}
    ),
    "flow_matching, mean_flow": Way(FLOW, {"method": "mean_flow"}),
    "flow_matching, improved_mean_flow": Way(FLOW, {"method": "improved_mean_flow"}),
    "flow_matching, align_your_flow": Way(FLOW, {"method": "align_your_flow"}),
    "flow_matching, so_flow": Way(FLOW, {"method": "so_flow"}),
    "annealing_reflow, re_mean_flow": Way(REFLOW, {"method": "re_mean_flow"}),
    "flow_matching, s_cm": Way(FLOW, {"method": "s_cm"}),
    "flow_matching, shortcut": Way(FLOW, {"method": "shortcut"}),
    "flow_matching, split_mean_flow": Way(FLOW, {"method": "split_mean_flow"}),
    "flow_matching, free_flow": Way(FLOW, {"method": "free_flow"}),
    "flow_matching, inductive_moment_matching": Way(FLOW, {"method": "inductive_moment_matching"}),
    "pair_regression, imle": Way(REGRESSION, {"method": "imle"}),
    "slimflow, then drifting": Way(REFLOW, GUIDED, {"method": "drifting"}),
    "flow_matching, idempotent": Way(FLOW, {"method": "idempotent"}),
}
FLIP = {"flip": True}
SLIMFLOW: Mapping[str, Way] = {
    "slimflow": WAYS["slimflow"],
    "slimflow without annealing": Way({**REFLOW, "anneal_steps": 0}, GUIDED),
    "slimflow without the two-step term": Way(REFLOW, {**GUIDED, "two_step_weight": 0.0}),
    "slimflow, mirrored": Way({**REFLOW, **FLIP}, {**GUIDED, **FLIP}),
    "slimflow, mirrored, without annealing": Way({**REFLOW, **FLIP, "anneal_steps": 0}, {**GUIDED, **FLIP}),
    "slimflow, init = teacher": Way({**REFLOW, "init": "teacher"}, GUIDED),
}
SCORES: Mapping[str, dict[str, Any]] = {
    "distribution_matching kl (the teacher's score)": MATCHING,
    "density_ratio (no score)": {"method": "density_ratio", "encoder": "small"},
    "adversarial (no score)": {**ADVERSARIAL, "critic": "small", "regression_weight": 0.0},
}
INITIALISATION: Mapping[str, Way] = {
    # One step of slim at a rate of nothing: the student starts as it is initialised, and no pairs take part.
    f"{name}, init = {init}": Way({**FLOW, "init": init, "learning_rate": 1e-9}, distill, whole=True)
    for name, distill in SCORES.items()
    for init in ("teacher", "random")
}
# The same teacher, which knows its classes and none; pairs, and what else asks it, have its guidance baked in.
GUIDANCE: Mapping[str, Way] = {
    f"{name}, guidance = {scale:g}": replace(WAYS[name], teacher={"label_dropout": 0.1, "guidance": scale})
    for name in (
        *("slimflow", "slimflow, then adversarial", "pair_regression, then adversarial"),
        "pair_regression, init = teacher, then adversarial",
    )
    for scale in (1.0, 1.5)
}
# One network, and two of half its size, each for half of the classes and with half of the images.
STUDENTS: Mapping[str, Way] = {
    name + (f", {number} students" if number > 1 else ""): replace(WAYS[name], students=number)
    for name in ("slimflow", "slimflow, then adversarial")
    for number in (1, 2)
}
TABLES: Mapping[str, Mapping[str, Way]] = {
    "methods": WAYS,
    "slimflow": SLIMFLOW,
    "initialisation": INITIALISATION,
    "guidance": GUIDANCE,
    "students": STUDENTS,
}
ALL_WAYS: Mapping[str, Way] = {name: way for table in TABLES.values() for name, way in table.items()}


def tables(data: str, way: Way, seed: int, source: str, share: float) -> Tables:
    """The recipe of one row."""
    base: Tables = {name: dict(keys) for name, keys in DATA[data].items()}
    for table, keys in LOOP.items():
        base[table] |= keys
    steps = {table: round(base[table]["steps"] * share) for table in ("slim", "distill")}
    if way.whole:
        steps = {"slim": 1, "distill": steps["slim"] + steps["distill"] - 1}
        base["slim"]["network"] = base["teacher"]["model"]
        del base["slim"]["keep"]
    if way.students > 1:
        base["slim"] |= {"keep": base["slim"]["keep"] / way.students, "students": way.students}
    if way.finish is not None:
        finish = round(sum(steps.values()) * FINISH_SHARE)
        steps["distill"] -= finish
        base["finish"] = {**way.finish, "steps": finish, "recall_drop": 0.0}  # none ends early: equal conditions
    base["slim"] |= {**way.slim, "steps": steps["slim"]}
    base["distill"] |= {**way.distill, "steps": steps["distill"]}
    for table in ("distill", "finish"):
        if table in base:
            base[table] |= KEYS.get(data, {}).get(base[table]["method"], {})
    base["teacher"] |= way.teacher
    base["teacher"]["steps"] = round(base["teacher"]["steps"] * share)
    base["data"] |= {"source": source}
    base["evaluate"] = {"steps": [1, 20], "seeds": 3, **base.get("evaluate", {})}
    return {**base, "baseline": {"enabled": False}, "name": f"{data}-{seed}", "seed": seed}  # type: ignore[dict-item]


def row(data: str, name: str, way: Way, seed: int, *, source: str, runs: Path, share: float) -> dict[str, Any]:
    """Trains what is not there yet, and reads the figures."""
    recipe = parse(tables(data, way, seed, source, share), where=name)
    results = {item.stage: item for item in run_recipe(recipe, runs=runs, to="evaluate", progress=progress())}
    quality = read_json(results["evaluate"].folder / "quality.json")["quality"]
    last = "distill" if way.finish is None else "finish"
    student = load_generator(results[last].folder / "generator")
    teacher = load_generator(results["teacher"].folder / "generator")
    trained = {stage: results[stage] for stage in ("slim", "distill", "finish") if stage in results}
    steps = {"slim": recipe.slim, "distill": recipe.distill, "finish": recipe.finish}
    images = sum(steps[stage].steps * steps[stage].batch for stage in trained)  # type: ignore[union-attr]
    seconds = sum(result.seconds for result in trained.values())
    one_step = dict(quality["student" if way.finish is None else "finished"]["1"])
    one_step |= {f"fd_{space}": figures["fd"] for space, figures in one_step.pop("spaces", {}).items()}
    return {
        "data": data,
        "method": name,
        "seed": seed,
        "share": share,
        "figures": one_step,
        "teacher": min((part["fd_local"] for part in quality["teacher"].values()), default=None),
        "floor": quality["floor"]["0"]["fd_local"],
        "parameters": student.parameters,
        "teacher_parameters": teacher.parameters,
        "images": images,
        "seconds": seconds,
        "images_per_s": images / seconds,
    }


def networks_beside(data: str, way: Way) -> list[str]:
    """Those of all stages of a way."""
    recipe = parse(tables(data, way, 0, "digits", 1.0), where=data)
    stages = [table for table in (recipe.slim, recipe.distill, recipe.finish) if table is not None]
    return sorted({name for table in stages for name in beside(table.objective)})


def memory_mb(data: str, name: str, source: str) -> float:
    """The most memory of this process while a student trains for a few steps (Linux)."""
    values = tables(data, ALL_WAYS[name], 0, source, 1.0)
    for table, steps in {**FEW_STEPS, "teacher": 2}.items():
        if table in values:
            values[table]["steps"] = steps
        if values.get(table, {}).get("method") == "distribution_matching":
            values[table]["head_start"] = 0  # longer than these steps
    values["pairs"]["count"] = 128
    recipe = parse(values, where=name)
    with tempfile.TemporaryDirectory() as runs:
        run_recipe(recipe, runs=Path(runs), to="pairs")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        run_recipe(recipe, runs=Path(runs), to="distill" if recipe.finish is None else "finish")
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux tells it"
    return int(found[1]) * 1024 / 1e6


def summary(rows: Sequence[Mapping[str, Any]], data: str, table: str) -> Iterator[dict[str, Any]]:
    """By method of a table: mean and standard deviation over the seeds."""
    for name in sorted({item["method"] for item in rows if item["data"] == data and item["method"] in TABLES[table]}):
        own = [item for item in rows if (item["data"], item["method"]) == (data, name)]
        distances = [item["figures"]["fd_local"] for item in own]
        keys = [key for key, value in own[0]["figures"].items() if isinstance(value, int | float) and key != "sd"]
        yield {
            "data": data,
            "method": name,
            "seeds": sorted(item["seed"] for item in own),
            "fd_local": statistics.mean(distances),
            "sd": statistics.stdev(distances) if len(own) > 1 else None,
            "of_teacher": statistics.mean(item["figures"]["fd_local"] / teachers_best(rows, item) for item in own),
            "figures": {key: statistics.mean(item["figures"][key] for item in own) for key in keys},
            "minutes": statistics.mean(item["seconds"] for item in own) / 60,
            "images_per_s": statistics.mean(item["images_per_s"] for item in own),
            "size": own[0]["parameters"] / own[0]["teacher_parameters"],
        }


def teachers_best(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> float:
    """The lowest fd_local of a row's teacher: a plan without pairs does not measure it at their number of steps.

    It has that of the other rows of its seed, the lowest where their teachers were trained on several machines.
    """
    way = ALL_WAYS[row["method"]]
    if needs_pairs(parse(tables(row["data"], way, 0, "digits", 1.0), where=row["method"])):
        return float(row["teacher"])
    settings = way.teacher
    same = [item for item in rows if (item["data"], item["seed"]) == (row["data"], row["seed"])]
    return min(item["teacher"] for item in same if ALL_WAYS[item["method"]].teacher == settings)


def best_ways(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each method and data set the best of the ways with most seeds: what `edgegen methods` tells."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for data in DATA:
        for item in sorted(summary(rows, data, "methods"), key=lambda item: (-len(item["seeds"]), item["of_teacher"])):
            way = WAYS[item["method"]]
            for stage in (way.slim, way.distill, way.finish or {}):
                if "method" in stage:
                    result = {"data": data, "way": item["method"], "of_teacher": round(item["of_teacher"], 4)}
                    result = {"method": stage["method"], **result, "seeds": len(item["seeds"])}
                    best.setdefault((stage["method"], data), result)
    return [best[key] for key in sorted(best)]


def goals(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the bench asks for, from the rows that are there."""
    result = []
    for data, (times, size) in GOALS.items():
        table = {item["method"]: item for item in summary(rows, data, "methods")}
        plain = table.pop(PLAIN, None)
        rivals = [item for item in table.values() if plain is not None and {*item["seeds"]} >= {*plain["seeds"]}]
        if not rivals:
            continue
        best = min(rivals, key=lambda item: item["of_teacher"])
        # Seed by seed on the same teacher, paths and real images: teachers of other seeds differ by more than methods.
        leads = [
            plain_row["figures"]["fd_local"] - best_row["figures"]["fd_local"]
            for plain_row, best_row in itertools.product(rows, rows)
            if (plain_row["data"], plain_row["method"]) == (data, PLAIN)
            and (best_row["data"], best_row["method"], best_row["seed"]) == (data, best["method"], plain_row["seed"])
        ]
        if len(leads) > 1:
            lead = statistics.mean(leads) / max(statistics.stdev(leads), 1e-12)
            name = f"{data}: lead of {best['method']} over plain regression, in sd of the seeds' differences"
            result.append(goal(name, ">= 2", lead, lead >= 2))
        value = best["of_teacher"]
        result.append(goal(f"{data}: best one step over the teacher's fd_local", f"<= {times}", value, value <= times))
        result.append(goal(f"{data}: size of the student", f"<= {size:.3g}", best["size"], best["size"] <= size))
    return result


def goal(name: str, target: str, value: float, met: bool) -> dict[str, Any]:
    return {"name": name, "target": target, "value": round(value, 3), "met": met}


def show(rows: Sequence[Mapping[str, Any]], memory: Mapping[str, Mapping[str, float]]) -> None:
    for data, name in itertools.product(DATA, TABLES):
        table = sorted(summary(rows, data, name), key=lambda item: item["of_teacher"])
        if not table:
            continue
        others = [key for key in SHOWN if key in table[0]["figures"]]
        columns = ["method", "seeds", "fd_local", "of the teacher's", *others, "minutes", "images/s"]
        columns += ["MB", "networks"]
        print(f"\n## {data}, {name}\n\n| {' | '.join(columns)} |")
        print("|---" * len(columns) + "|")
        for item in table:
            spread = "" if item["sd"] is None else f" ± {item['sd']:.3f}"
            seeds = ", ".join(map(str, item["seeds"]))
            figures = " | ".join(f"{item['figures'].get(key, float('nan')):.3g}" for key in others)
            print(
                f"| {item['method']} | {seeds} | {item['fd_local']:.3f}{spread} | {item['of_teacher']:.2f} | "
                f"{figures} | {item['minutes']:.1f} | {item['images_per_s']:.0f} | "
                f"{memory.get(data, {}).get(item['method'], '-')} | "
                f"{', '.join(networks_beside(data, ALL_WAYS[item['method']]))} |",
                flush=True,
            )
    print("\n| goal | target | value | met |\n|---|---|---|---|")
    for item in goals(rows):
        print(f"| {item['name']} | {item['target']} | {item['value']} | {'yes' if item['met'] else 'no'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, one seed, three methods, a fifth of the steps")
    parser.add_argument("--json", action="store_true", help="goals and rows as JSON on stdout")
    parser.add_argument("--data", choices=list(DATA), action="append", help="default: digits")
    parser.add_argument("--table", choices=list(TABLES), action="append", help="default: methods")
    parser.add_argument("--method", choices=list(ALL_WAYS), action="append", help="default: all of the tables")
    parser.add_argument("--seed", type=int, action="append", help="default: 0, 1 and 2")
    parser.add_argument("--memory", action="store_true", help="(Linux) measure the memory of each way with rows")
    parser.add_argument("--into", type=Path, default=None, help="rows of earlier runs are kept here")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_methods"))
    parser.add_argument("--fashion", type=Path, help="fashion_mnist.npz, for --data fashion")
    arguments = parser.parse_args()
    share = 0.2 if arguments.quick else 1.0
    seeds = arguments.seed or ([0] if arguments.quick else [0, 1, 2])
    tables_shown = arguments.table or ["methods"]
    methods = arguments.method or (QUICK if arguments.quick else [way for name in tables_shown for way in TABLES[name]])
    into = arguments.into or (None if arguments.quick else HERE / ROWS)
    kept = read_json(into) if into is not None and into.exists() else {"rows": []}
    rows: list[dict[str, Any]] = kept["rows"]
    memory: dict[str, dict[str, float]] = kept.get("memory", {})
    for data in arguments.data or ["digits"]:
        source = "digits" if data == "digits" else str(arguments.fashion)
        if data == "fashion" and (arguments.fashion is None or not arguments.fashion.is_file()):
            parser.error("--data fashion needs --fashion FILE.npz")
        if arguments.memory:
            for name in sorted({item["method"] for item in rows if item["data"] == data} - {*memory.get(data, {})}):
                with multiprocessing.get_context("spawn").Pool(1) as pool:  # nothing is in its memory yet
                    memory.setdefault(data, {})[name] = round(pool.apply(memory_mb, (data, name, source)))
                print(f"{data} {name}: {memory[data][name]} MB", file=sys.stderr)
                if into is not None:
                    write_json(into, {**kept, "memory": memory})
            continue
        for seed in seeds:
            for name in methods:
                same = (data, name, seed, share)
                others = [item for item in rows if (item["data"], item["method"], item["seed"], item["share"]) != same]
                if len(others) < len(rows) and not arguments.again:
                    continue
                made = row(data, name, ALL_WAYS[name], seed, source=source, runs=arguments.runs, share=share)
                rows = [*others, made]
                if into is not None:
                    write_json(into, {"machine": probe(), "rows": rows, "memory": memory})
                if into == HERE / ROWS:
                    write_json(BENCH, best_ways(rows))
                print(f"{data} {name} seed {seed}: fd_local {made['figures']['fd_local']:.3f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"goals": goals(rows), "rows": rows, "memory": memory}))
    else:
        show(rows, memory)


if __name__ == "__main__":
    main()
