"""Builds, proves and measures the candidates of `edgegen tune`; what is there already is not made again.

<folder>/files/<key>/        a file and its manifest, by everything that decides its bytes; of a wrong one the
                             manifest alone, or why it could not be made
<folder>/times/<key>.json    a measurement ("edgegen.profile/1") of files in turn, by device and content
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegen import registry
from edgegen.artifacts.maker import Maker, parallel_children
from edgegen.artifacts.target import Target
from edgegen.artifacts.tuning import Candidate, Changes, Trial
from edgegen.artifacts.tuning_switches import Switches, rewrites_of
from edgegen.errors import DataError, DeviceError, ExportError, UsageError
from edgegen.formats.manifest import MANIFEST, tool_versions, write_manifest
from edgegen.profilers import schema as measurements
from edgegen.profilers.files.profile import connect, profile_files, runners_of
from edgegen.profilers.schema import MeasuredFile, Profile
from edgegen.profilers.timing.protocol import ProfileOptions
from edgegen.program.fingerprint import fingerprint
from edgegen.support.storage import read_json, sha256_of, write_json
from edgegen.types import Artifact
from edgegen.verification.verify import Verifier

VERSION = 2  # raised whenever edgegen makes other files than before from the same arguments
IDENTITY = ("cpu", "model", "arch", "threads", "memory_bytes")  # the properties of a device that do not change
QUICK = ProfileOptions(min_runs=20, max_seconds=3.0)
FINAL = ProfileOptions(min_runs=40, min_seconds=3.0, max_seconds=10.0, cold_starts=1)


@dataclass(frozen=True)
class Made:
    """A file of the folder, with what its manifest says; `path` is None, with the `reason`, where it is refused."""

    path: Path | None
    facts: Mapping[str, Any]
    reason: str = ""

    @property
    def artifact(self) -> Artifact:
        return Artifact(**{key: value for key, value in self.facts.items() if key != "parity"})


class TuningBench:
    """Of one generator, by its `maker`, on one `device`; `samples` noises prove each file.

    `about` is what the function of this name says of the device; `context`, what else decides the files' bytes.
    A context manager: the process that proves the files ends with the block.
    """

    def __init__(
        self,
        maker: Maker,
        *,
        device: str,
        about: Mapping[str, Any],
        samples: int,
        context: Mapping[str, Any],
        folder: Path,
    ) -> None:
        self.maker, self.device, self.folder, self.progress = maker, device, folder, maker.progress
        self.about_device, self.context = about, context
        generator, options = maker.generator, maker.options
        self.network = fingerprint(generator.folded().program, generator.signature, generator.real)
        self.verifier = Verifier(
            generator,
            samples=samples,
            seed=maker.seed,
            sizes=options.heights_widths,
            memory_limit=maker.memory_limit,
        )
        self.samples = samples
        self.made: dict[tuple[Target, Changes], Made] = {}
        self.switches = Switches(maker)

    def __enter__(self) -> "TuningBench":
        return self

    def __exit__(self, *error: object) -> None:
        self.verifier.process.close()

    def compare(self, reference: Candidate, candidates: Sequence[Candidate], *, final: bool = False) -> list[Trial]:
        """As `tuning.Bench` says."""
        self._make([reference, *candidates])
        made = {candidate: self.made_of(candidate) for candidate in (reference, *candidates)}
        if made[reference].path is None:
            return [self._untimed(candidate, reference) for candidate in candidates]
        true = [one for one in made if made[one].path is not None and not self._is_same(one, reference)]
        if true == [reference] and reference not in candidates:  # nothing to be timed
            return [self._untimed(candidate, reference) for candidate in candidates]
        records = self._measured(true, final=final)
        of_reference = _record(records, made[reference], reference)
        if of_reference.latency is None and reference not in candidates:
            raise DeviceError(f"{reference}: {'; '.join(of_reference.verdict.reasons)}")
        return [
            self._trial(candidate, reference, made, records)
            if candidate in true and of_reference.latency is not None
            else self._untimed(candidate, reference, of_reference)
            for candidate in candidates
        ]

    def _is_same(self, candidate: Candidate, reference: Candidate) -> bool:
        """Whether another candidate is run as the reference is, from a file of the same bytes."""
        hashes = {self.made_of(one).facts.get("sha256") for one in (candidate, reference)}
        return candidate != reference and len(hashes) == 1 and candidate.threads == reference.threads

    def made_of(self, candidate: Candidate) -> Made:
        """The file of a candidate that was compared."""
        return self.made[candidate.target, candidate.changes]

    def _trial(
        self,
        candidate: Candidate,
        reference: Candidate,
        made: Mapping[Candidate, Made],
        records: Mapping[tuple[str, int], MeasuredFile],
    ) -> Trial:
        record, of_reference = (_record(records, made[one], one) for one in (candidate, reference))
        facts = made[candidate].facts
        if record.latency is None:
            return Trial(candidate, reference, reason="; ".join(record.verdict.reasons), facts=facts)
        assert of_reference.latency is not None, "timed"
        noisy = [one.verdict for one in (record, of_reference) if one.verdict.status == "noisy"]
        doubts = {reason for verdict in noisy for reason in verdict.reasons}
        return Trial(
            candidate,
            reference,
            tuple(np.array(block) for block in record.latency.blocks_ms),
            tuple(np.array(block) for block in of_reference.latency.blocks_ms),
            doubt="; ".join(sorted(doubts)),
            facts=facts,
        )

    def _untimed(self, candidate: Candidate, reference: Candidate, of_reference: MeasuredFile | None = None) -> Trial:
        """A trial without a time: the file is refused, the reference's own, or the reference could not be timed."""
        made = self.made_of(candidate)
        if made.path is not None and self._is_same(candidate, reference):
            return Trial(candidate, reference, is_same=True, facts=made.facts)
        reason = made.reason or f"not timed: {reference} cannot be"
        if not made.reason and of_reference is not None and candidate == reference:
            reason = "; ".join(of_reference.verdict.reasons)
        return Trial(candidate, reference, reason=reason, facts=made.facts)

    def _make(self, candidates: Sequence[Candidate]) -> None:
        """Builds what is not there, several at once, and proves it."""
        wanted = list(dict.fromkeys((one.target, one.changes) for one in candidates))
        missing = []
        for key in wanted:
            if key not in self.made:
                known = self._known(self._folder(*key))
                if known is None:
                    missing.append(key)
                else:
                    self.made[key] = known
        if not missing:
            return
        for target, _ in missing:  # captured in this thread, once for all
            self.maker.input(target.scheme, any_size=target.kind().any_size)
        count = parallel_children(self.maker.generator)
        with self.progress.task("building", len(missing)) as task, ThreadPoolExecutor(count) as pool:
            for number, (key, built) in enumerate(zip(missing, pool.map(self._build, missing), strict=True), start=1):
                self.made[key] = self._prove(built, self._folder(*key)) if isinstance(built, Artifact) else built
                task.update(number, str(Candidate(*key)).rpartition(", ")[0])

    def _build(self, key: tuple[Target, Changes]) -> Artifact | Made:
        target, changes = key
        folder = self._folder(*key)
        folder.mkdir(parents=True, exist_ok=True)
        options = self.maker.options
        options = options.model_copy(update={"rewrites": {**options.rewrites, **rewrites_of(changes)}})
        try:
            layers = self.switches.checked_float_layers(target, changes)
            return self.maker.build(target, folder, options=options, float_layers=layers).artifact
        except (ExportError, UsageError) as e:  # of this candidate; any other, such as a full disk, ends the search
            write_json(folder / "refused.json", {"reason": str(e)})
            return Made(None, {}, str(e))

    def _prove(self, artifact: Artifact, folder: Path) -> Made:
        """Compares the file with PyTorch; one that is not proven does not stay."""
        parity, _ = self.verifier(artifact, folder / artifact.file)
        if parity.status != "ok":
            for path in (folder / artifact.file, *(folder / name for name in artifact.details["extra_files"])):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_manifest(folder, [artifact], self.maker.generator.signature, lineage={}, parity={artifact.file: parity})
        return _made(folder, {**artifact.to_dict(), "parity": parity.to_dict()})

    def _known(self, folder: Path) -> Made | None:
        """What an earlier search left in `folder`; None where it left nothing whole. The manifest is written last."""
        with contextlib.suppress(DataError, KeyError, TypeError, ValueError):
            if (folder / "refused.json").is_file():
                return Made(None, {}, str(read_json(folder / "refused.json")["reason"]))
            (row,) = read_json(folder / MANIFEST)["artifacts"]
            made = _made(folder, row)
            if made.path is None or (made.path.exists() and sha256_of(made.path) == row["sha256"]):
                return made
        return None

    def _folder(self, target: Target, changes: Changes) -> Path:
        maker = self.maker
        content = {
            "network": self.network,
            "name": maker.name,
            "metadata": dict(maker.metadata),
            "target": str(target),
            "rewrites": rewrites_of(changes),
            "float_layers": self.switches.float_layers(target, changes),
            "default": list(registry.load("backend", target.backend).rewrites),
            "export": maker.options.model_dump(mode="json", exclude={"artifacts", "tune_on"}),
            "quantize": maker.quantization.model_dump(mode="json"),
            "seed": maker.seed,
            "samples": self.samples,
            "context": dict(self.context),
            "tools": tool_versions(),
            "version": VERSION,
        }
        return self.folder / "files" / _key(content)

    def _measured(self, candidates: Sequence[Candidate], *, final: bool) -> dict[tuple[str, int], MeasuredFile]:
        """By SHA-256 and threads; files of the same bytes are measured once. A noisy measurement is repeated once."""
        files = {made.facts["sha256"]: made.path for made in map(self.made_of, candidates) if made.path is not None}
        threads = tuple(sorted({candidate.threads for candidate in candidates}))
        about = {name: self.about_device.get(name) for name in IDENTITY}
        content = {"device": self.device, "about": about, "files": sorted(files), "threads": threads, "final": final}
        path = self.folder / "times" / f"{_key({**content, 'tools': tool_versions()})}.json"
        profile = _stored(path)
        if profile is None:
            profile = self._profile(files, threads, FINAL if final else QUICK)
            if any(record.verdict.status == "noisy" for record in profile.results):
                profile = self._profile(files, threads, FINAL if final else QUICK)
            if all(record.latency is not None for record in profile.results):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, profile.to_json())
        return {(record.artifact.sha256, record.config.threads_requested): record for record in profile.results}

    def _profile(self, files: Mapping[str, Path], threads: tuple[int, ...], options: ProfileOptions) -> Profile:
        return profile_files(
            list(files.values()),
            connect(self.device),
            threads=threads,
            names=[f"{sha256[:8]}-{file.name}" for sha256, file in files.items()],
            options=options,
            progress=self.progress,
        )


def about(device: str) -> dict[str, Any]:
    """What a device is, its `name` and by suffix what `runs` there. Raises DeviceError where it gives no times."""
    connected = connect(device)
    try:
        facts = connected.probe()
        if facts.get("emulated"):
            raise DeviceError(f"{device}: {facts['emulated']} says nothing about a device's time, so nothing is tuned")
        runs = runners_of(connected)
        return {"name": connected.name, **{name: facts.get(name) for name in IDENTITY}, "runs": runs}
    finally:
        connected.close()


def _record(records: Mapping[tuple[str, int], MeasuredFile], made: Made, candidate: Candidate) -> MeasuredFile:
    return records[made.facts["sha256"], candidate.threads]


def _made(folder: Path, row: Mapping[str, Any]) -> Made:
    parity = row["parity"]
    if parity["status"] == "ok":
        return Made(folder / row["file"], row)
    return Made(None, row, f"{parity['status']} against PyTorch: {parity['reason']}")


def _stored(path: Path) -> Profile | None:
    with contextlib.suppress(DataError):
        return measurements.read(path)
    return None


def _key(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
