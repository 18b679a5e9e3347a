"""What `details.tuned` of an artifact in manifest.json says: on which device a file was the fastest, and of which."""

from collections.abc import Mapping
from typing import Any

TUNED = "tuned"  # the key in an artifact's details


def sentence(details: Mapping[str, Any]) -> str:
    """For cards and reports, "tuned on host (AMD EPYC): ..."; "" of a file that was not tuned."""
    facts = details.get(TUNED)
    if not facts:
        return ""
    about = facts["about_device"]
    chip = about.get("cpu") or about.get("model") or about.get("arch")
    place = f"{facts['device']} ({chip})" if chip else facts["device"]
    return f"tuned on {place}: {facts['kept']}, of {len(facts['candidates'])} measurements; {facts['why']}"


def table(details: Mapping[str, Any]) -> list[str]:
    """Every measurement as lines of Markdown, and what was kept and why; nothing of a file that was not tuned."""
    facts = details.get(TUNED)
    if not facts:
        return []
    lines = ["| candidate | against PyTorch | p50 ms (95 %) | of the time of | verdict |", "|---|---|---|---|---|"]
    for row in facts["candidates"]:
        psnr_db = row["parity"]["psnr_db"]
        true = (row["parity"]["status"] or "not made") + ("" if psnr_db is None else f", {psnr_db:.1f} dB")
        p50, beside = "-", "-"
        if "p50_ms" in row:
            p50 = "{:.3g} ({:.3g} to {:.3g})".format(row["p50_ms"], *row["p50_ci95_ms"])
            low, high = row["time_over_that_ci95"]
            if row["candidate"] != row["beside"]:
                beside = f"{row['time_over_that']:.2f} ({low:.2f} to {high:.2f}) {row['beside']}"
        verdict = row["verdict"] + (f" (noisy: {row['doubt']})" if row.get("doubt") else "")
        lines.append(f"| {row['candidate']} | {true} | {p50} | {beside} | {verdict} |")
    stopped = [] if facts["all_tried"] else ["The time was over before everything was tried."]
    return [*lines, "", sentence(details), *stopped]
