"""Hugging Face datasets: the real library where it is installed, and the message where it is not."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgegen.data import load, split
from edgegen.errors import DataError, MissingExtraError


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = pytest.importorskip("datasets", reason="needs the extra 'datasets'")
    monkeypatch.setattr(library.config, "HF_DATASETS_OFFLINE", True)
    library.disable_progress_bars()
    return library


def grey(value: int) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def rows(datasets: Any, values: list[int], labels: Any = None, **features: Any) -> Any:
    columns: dict[str, Any] = {"image": [grey(value) for value in values]}
    if labels is not None:
        columns["label"] = labels
    return datasets.Dataset.from_dict(columns, features=datasets.Features({"image": datasets.Image(), **features}))


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"'hf:mnist' needs 'datasets', .*: pip install 'edgegen\[datasets\]'"):
        load("hf:mnist", base=tmp_path)


def test_a_saved_dataset_keeps_the_order_of_its_classes(datasets: Any, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["zebra", "unused", "ant"])
    rows(datasets, [5, 6, 7], [2, 0, 2], label=names).save_to_disk(tmp_path / "set")
    dataset = load("hf:./set", base=tmp_path)
    assert dataset.images.shape == (3, 4, 6, 1)
    assert dataset.images[:, 0, 0, 0].tolist() == [5, 6, 7]
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.classes, dataset.source) == ([1, 0, 1], ("zebra", "ant"), "hf:set")


def test_splits(datasets: Any, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["a", "b"])
    parts = {"train": rows(datasets, [1, 2], [0, 1], label=names), "test": rows(datasets, [3, 4], [1, 1], label=names)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    train, held = split(load("hf:./set", base=tmp_path), holdout=0.5, seed=0)
    assert held.labels is not None
    assert (train.images[:, 0, 0, 0].tolist(), held.images[:, 0, 0, 0].tolist()) == ([1, 2], [3, 4])
    assert held.labels.tolist() == [1, 1]
    only = load("hf:./set:test", base=tmp_path)
    assert (only.source, only.heldout, only.classes) == ("hf:set:test", None, ("b",))
    with pytest.raises(DataError, match=r"no split 'tests'; there are: test, train\. Did you mean 'test'\?"):
        load("hf:./set:tests", base=tmp_path)
    datasets.DatasetDict({"x": parts["train"], "y": parts["test"]}).save_to_disk(tmp_path / "odd")
    with pytest.raises(DataError, match=r"no split 'train'; there are: x, y\. Say which: hf:\./odd:x"):
        load("hf:./odd", base=tmp_path)


@pytest.mark.parametrize(("labels", "kind"), [([4, 2, 4], "int64"), (["b", "a", "b"], "string")])
def test_plain_label_columns(datasets: Any, tmp_path: Path, labels: list[Any], kind: str) -> None:
    rows(datasets, [1, 2, 3], labels, label=datasets.Value(kind)).save_to_disk(tmp_path / "set")
    dataset = load("hf:./set", base=tmp_path)
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.classes) == ([1, 0, 1], tuple(str(x) for x in sorted(set(labels))))


def test_no_labels(datasets: Any, tmp_path: Path) -> None:
    rows(datasets, [1, 2]).save_to_disk(tmp_path / "set")
    dataset = load("hf:./set", base=tmp_path)
    assert (dataset.labels, dataset.classes) == (None, ())


def test_refusals(datasets: Any, tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["a", "b"])

    def refused(made: Any, words: str) -> None:
        made.save_to_disk(tmp_path / str(len(list(tmp_path.iterdir()))))
        with pytest.raises(DataError, match=words):
            load(f"hf:./{len(list(tmp_path.iterdir())) - 1}", base=tmp_path)

    refused(rows(datasets, [1, 2], [0, -1], label=names), "a row of column 'label' has no label")
    refused(rows(datasets, [1, 2], [0.5, 1.5], label=datasets.Value("float32")), "neither whole numbers nor names")
    refused(datasets.Dataset.from_dict({"pixels": [[1], [2]]}), r"no column of images; found pixels \(")
    two = {"left": [grey(1)] * 2, "right": [grey(2)] * 2}
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image()})
    refused(
        datasets.Dataset.from_dict(two, features=features),
        "several columns of kind Image: left, right; rename the one to use to 'image'",
    )
    empty = {"image": [grey(1), None]}
    refused(
        datasets.Dataset.from_dict(empty, features=datasets.Features({"image": datasets.Image()})),
        "row 1: has no image; filter such rows out",
    )


def test_places_that_are_not_there(datasets: Any, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no folder .*set; 'hf:\./set' should be one that a dataset's save_to_disk wrote"
    ):
        load("hf:./set", base=tmp_path)
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"hf:\./set: cannot be loaded \(FileNotFoundError.*written by save_to_disk\?"):
        load("hf:./set", base=tmp_path)


def test_only_a_name_without_a_dot_or_slash_in_front_asks_the_hub(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hub(name: str) -> Any:
        asked.append(name)
        if name == "owner/none":
            raise ConnectionError("no network")
        return datasets.DatasetDict({"train": rows(datasets, [1, 2])})

    monkeypatch.setattr(datasets, "load_dataset", hub)
    assert load("hf:owner/set:train", base=tmp_path).source == "hf:owner/set:train"
    with pytest.raises(
        DataError, match=r"hf:owner/none: cannot be loaded \(ConnectionError: no network\); check the name"
    ):
        load("hf:owner/none", base=tmp_path)
    for local in ("hf:./owner", "hf:../owner", f"hf:{tmp_path}/owner"):
        with pytest.raises(DataError, match="no folder"):
            load(local, base=tmp_path)
    assert asked == ["owner/set", "owner/none"]


def test_an_image_kept_as_a_path(datasets: Any, tmp_path: Path) -> None:
    for value in (1, 2):
        Image.new("L", (6, 4), value).save(tmp_path / f"{value}.png")
    paths = {"image": [{"bytes": None, "path": str(tmp_path / f"{value}.png")} for value in (1, 2)]}
    made = datasets.Dataset.from_dict(paths, features=datasets.Features({"image": datasets.Image()}))
    from edgegen.data.hf import _read

    assert _read(made, "hf:x", None).images[:, 0, 0, 0].tolist() == [1, 2]
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"row 1: .*2\.png cannot be read"):
        _read(made, "hf:x", None)
