"""The table of quality: every network at every number of steps in a row, every figure that is known in a column."""

from collections.abc import Sequence

from edgegen.report.formats import UNKNOWN, number, percent, plural, worded
from edgegen.report.schema import FeatureSpace, QualityFigure, Report
from edgegen.report.tables import NETWORKS, ReportTable, TableCell, cells, columns

NETWORK_NAMES = {
    "bicubic": "bicubic enlargement, no network",
    "scheduler": "teacher, by its own scheduler",
    "best_of_4": "best of 4 by the verifier",
}
SPACE_TITLES = {"random": "fd_random", "inception": "FID", "dinov2": "fd_dinov2"}  # by the key of a space
SPACE_MEANINGS = {
    "random": "in features of {name}, the same in every run and used by no training. ",
    "inception": "in features of {name}, against all training images. ",
    "dinov2": "in features of {name}, against all training images. ",
}
FIGURES = {  # title: field of a QualityFigure
    "PSNR dB": "psnr_db",
    "SSIM": "ssim",
    "kd_local": "kd_local",
    "Precision": "precision",
    "Recall": "recall",
    "Density": "density",
    "Coverage": "coverage",
    "Classes": "class_distance",
    "Spectrum": "spectrum_db",
    "Nearest": "nearest_ratio",
    "Copies": "copied",
}
SHARES = ("class_distance", "copied")  # of the images: in percent
MEANINGS = {
    "psnr_db": "PSNR and SSIM: against the true image, whose small copy was enlarged; blur costs them little. ",
    "precision": "Higher is better for precision, recall, density and coverage, lower for the others but Nearest. ",
    "class_distance": "Classes: the share of the images that would have to be of another class. ",
    "spectrum_db": "Spectrum: the difference of the power by frequency, in dB, which blur, noise and grids change. ",
    "nearest_ratio": "Nearest: the distance to the nearest training image, that of held-out images being 1. ",
    "copied": "Copies: the share of the images within a third of that distance. ",
}
ALWAYS = 3  # columns that are there also without any figure


def quality_table(report: Report) -> ReportTable:
    """All figures, the floor first; columns without any figure are left out."""
    spaces = [space.key for space in report.spaces]
    real = {"real, held out": report.quality.floor, "the same, by the autoencoder": report.quality.autoencoder or {}}
    rows = [_row(TableCell(name), "", figure, spaces) for name, table in real.items() for figure in table.values()]
    for network in NETWORKS:
        table = getattr(report.quality, network) or {}
        name = NETWORK_NAMES.get(network, network)
        named = [TableCell(name), *[TableCell(name, "muted")] * len(table)]
        steps = sorted(table, key=int)
        rows += [_row(name, s, table[s], spaces) for name, s in zip(named, steps, strict=False)]
    of_spaces = [f"{SPACE_TITLES.get(key, key)}#" for key in spaces]
    titles = columns(
        worded("Images", report.data.kind), "Steps#", "fd_local#", *of_spaces, *(f"{title}#" for title in FIGURES)
    )
    known = [i for i in range(len(titles)) if i < ALWAYS or any(row[i].text != UNKNOWN for row in rows)]
    shown = tuple(tuple(row[i] for i in known) for row in rows)
    return ReportTable(tuple(titles[i] for i in known), shown, _note(report, {titles[i].title for i in known}))


def _row(name: TableCell, steps: str, figure: QualityFigure, spaces: Sequence[str]) -> tuple[TableCell, ...]:
    distances = [(figure.fd_local, figure.sd)]
    for key in spaces:
        space = figure.spaces.get(key)
        distances.append((None, None) if space is None else (space.fd, space.sd))
    return cells(
        name,
        steps or UNKNOWN,
        *(_distance(distance, sd) for distance, sd in distances),
        *((percent if field in SHARES else number)(getattr(figure, field)) for field in FIGURES.values()),
    )


def _distance(distance: float | None, sd: float | None) -> str | TableCell:
    return number(distance) if sd is None else TableCell(number(distance), detail=f"± {number(sd, 2)}")


def _note(report: Report, titles: set[str]) -> str:
    extractor = report.extractor
    if extractor.fault:
        local = f"No figure of quality in the features of this run: {extractor.fault}. Look at the images. "
    else:
        local = (
            f"fd_local is not FID: it is the Fréchet distance between features of {extractor.name} "
            f"({extractor.fd_name}; accuracy {percent(extractor.accuracy)} on held-out images), so it can be compared "
            f"inside this report only. {_leak(report)}"
        )
    heldout = "" if report.n_heldout in (None, report.n) else f" (of held-out ones {report.n_heldout:,})"
    counts = f"Each figure is of {plural(report.n, 'image')}{heldout}; ± is the deviation over the noise seeds. "
    meanings = [text for title, field in FIGURES.items() if title in titles and (text := MEANINGS.get(field))]
    return worded("".join([local, *map(_space_note, report.spaces), counts, *meanings]).strip(), report.data.kind)


def _leak(report: Report) -> str:
    stages = report.extractor.trained_on
    return f"These features were used in the training of {', '.join(stages)}, which lowers it. " if stages else ""


def _space_note(space: FeatureSpace) -> str:
    title = SPACE_TITLES.get(space.key, space.key)
    if space.fault:
        return f"No {title}: {space.fault}. "
    meaning = SPACE_MEANINGS.get(space.key, "in features of {name}. ")
    return f"{title} is the same {meaning.format(name=space.name)}"
