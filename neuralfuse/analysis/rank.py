"""Which chips of a lot to look at first: by what the words that their weak cells hold should cost, without an image.

The score (fisher.py) takes no more than a chip's map. How well it ranks is measured wherever the folder has the rows of
a sweep: Spearman's correlation of score and accuracy lost, over chips.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import rankdata

from neuralfuse.analysis.fisher import IMAGES, score, sensitivities
from neuralfuse.results.rows import ALONE, Result, added
from neuralfuse.results.statistics import CONFIDENCE
from neuralfuse.results.tables import to_csv
from neuralfuse.study.check import check
from neuralfuse.study.check_task import check_counted
from neuralfuse.study.config import ProtectionConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point, points_of
from neuralfuse.study.lowered import Die, last
from neuralfuse.study.making import Say
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.bench import Bench
from neuralfuse.training.loop import threads
from sram.errors import InputError
from sram.files import write_atomic

SETTING = ["network", "accelerator", "structure", "protection", "voltage"]
FEWEST = 5  # chips whose ranks are compared


@dataclass(frozen=True)
class Ranked:
    """`chips`: as in rank.csv, the most doubtful of each setting first; sentences for a person."""

    chips: pd.DataFrame
    lines: list[str]


def rank_chips(folder: StudyFolder, say: Say) -> Ranked:
    """Score every chip of a study at every supply of its weights, bare and behind protections of that memory; writes
    rank.csv. InputError where no protection is one of the memory alone."""
    study = folder.study
    check(study)
    check_counted(study)
    shields = [protection.name for protection in study.protections if _of_memory_alone(protection)]
    if not shields:
        names = ", ".join(protection.name for protection in study.protections)
        raise InputError("study", "protections", names, "none, or a protection of the weight memory, among them")
    with folder.in_use():
        prepare(folder, say)
        points = [point for point in points_of(folder) if point.protection in shields]
        bench, known = Bench(folder), _measured(folder.rows.read())
        advance, chips = say("score the chips"), study.chips.numbers
        found: list[dict[str, object]] = []
        sensitivity = last(1, lambda network: _sensitivity(bench, network))
        for point in points:
            for chip in chips:
                for row in _scores(bench, point, chip, sensitivity(point.network)):
                    found.append(row | {"accuracy": known.get((*(row[name] for name in SETTING), chip), np.nan)})
                advance(len(found), len(points) * len(chips) * len(_supplies(bench, point)), {})
        table = pd.DataFrame(found)
        setting = table.groupby(SETTING, sort=False)
        table["place"] = setting.score_nats.rank(ascending=False, method="min").astype(int)
        table = table.assign(setting=setting.ngroup()).sort_values(["setting", "place", "chip"]).drop(columns="setting")
        write_atomic(folder.path / "rank.csv", to_csv(table))
    return Ranked(table, [*_agreements(table), *_left_out(study.protections, shields)])


def _sensitivity(bench: Bench, network: str) -> np.ndarray:
    with threads(1):
        return sensitivities(bench.network(network), bench.data.train_x[:IMAGES], bench.study.seed)


def _of_memory_alone(protection: ProtectionConfig) -> bool:
    parts = (protection.neuralfuse, protection.batchnorm, protection.second, protection.logic)
    return not any(parts) and not protection.memories


def _supplies(bench: Bench, point: Point) -> list[float]:
    """Of the weights, falling."""
    swept = (at.supply("weights").voltage for at in operating_points(bench.study, point.accelerator))
    return sorted(set(swept), reverse=True)


def _scores(bench: Bench, point: Point, chip: int, sensitivity: np.ndarray) -> Iterator[dict[str, object]]:
    """A row for each supply of a chip."""
    model, shield = bench.network(point.network), bench.study.protection(point.protection).sram
    die = bench.now(Die(point.accelerator, point.structure, chip))
    stored = bench.chip(point.network, die, shield)
    about = {name: getattr(point, name) for name in SETTING[:-1]}
    for voltage in _supplies(bench, point):
        yield about | {
            "voltage": voltage,
            "chip": chip,
            "score_nats": score(model, stored.faults(voltage), sensitivity),
        }


def _measured(rows: dict[str, Result]) -> dict[tuple, float]:
    """Accuracy by setting and chip, of sweeps that lower the weights alone."""
    parts: dict[tuple, list[Result]] = {}
    for row in rows.values():
        if row.rails == ALONE:
            parts.setdefault((*(getattr(row, name) for name in SETTING), row.chip), []).append(row)
    return {about: added(found).accuracy for about, found in parts.items()}


def spearman(x: np.ndarray, y: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Rank correlation of x and y (n,) and its interval by Fisher's z with the standard error of Bonett and Wright
    (Psychometrika 65, 2000); NaN where one of the two is constant.

    >>> [round(value, 2) for value in spearman(np.arange(20), np.arange(20) ** 2)]
    [1.0, 1.0, 1.0]
    """
    a, b = (rankdata(each) - (len(each) + 1) / 2 for each in (x, y))
    if not (a @ a and b @ b):
        return (np.nan,) * 3
    r = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    with np.errstate(divide="ignore"):
        z, half = np.arctanh(r), float(ndtri((1 + confidence) / 2)) * np.sqrt((1 + r * r / 2) / (len(a) - 3))
    return r, float(np.tanh(z - half)), float(np.tanh(z + half))


def _agreements(table: pd.DataFrame) -> list[str]:
    """How well scores order the chips that were measured."""
    lines = []
    for (*setting, voltage), part in table.groupby(SETTING, sort=False):
        part = part.dropna(subset=["accuracy"])
        if len(part) < FEWEST:
            continue
        r, low, high = spearman(part.score_nats.to_numpy(), -part.accuracy.to_numpy())
        said = "all alike" if np.isnan(r) else f"Spearman {r:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(
            f"{', '.join(map(str, setting))}, {voltage:g}: score and accuracy lost of {len(part)} chips: {said}"
        )
    return lines or ["no measured accuracy to hold the scores against: `neuralfuse sweep` in the same folder gives it"]


def _left_out(protections: tuple[ProtectionConfig, ...], shields: list[str]) -> list[str]:
    left = [protection.name for protection in protections if protection.name not in shields]
    return [f"not scored, for they change more than the memory: {', '.join(left)}"] if left else []
