"""How low may each chip go, and what does it save to sort chips by that? Runs the descents of
`neuralfuse.sweep.each_chip` in a study's folder, and writes what they say of the lot."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from neuralfuse.report import plots
from neuralfuse.report.yieldplots import own_supplies
from neuralfuse.results.binning import CONFIDENCE, Binned, binned
from neuralfuse.results.statistics import chip_margin, exact_share
from neuralfuse.results.tables import to_csv
from neuralfuse.study.check import check
from neuralfuse.study.check_task import check_counted
from neuralfuse.study.config import EachChipConfig, StudyConfig
from neuralfuse.study.cost import Cost
from neuralfuse.study.data import test_set
from neuralfuse.study.file_names import slug
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.making import Say
from neuralfuse.study.prepare import prepare
from neuralfuse.sweep.bench import Bench, run_chunk
from neuralfuse.sweep.collect import Failure, collect
from neuralfuse.sweep.each_chip import Descent, Ladder, Own, descents
from neuralfuse.sweep.executors import Workers
from sram import plugins
from sram.files import write_atomic

SCOPES = ("weight_sram", "sram", "chip", "system")
SETTING = ["network", "accelerator", "structure", "protection", "rails"]


@dataclass(frozen=True)
class Yields:
    """How low each chip may go: tables as in each_chip.csv, each_chip_shares.csv and each_chip_bins.csv, sentences for
    a person, and figures. `share`: of the images of all chips at all supplies that were measured."""

    chips: pd.DataFrame
    shares: pd.DataFrame
    bins: pd.DataFrame
    lines: list[str]
    figures: list[Path]
    share: float
    failures: list[Failure]


def each_chip(study: StudyConfig | str | Path, out: str | Path, workers: int = 1, quiet: bool = False) -> list[Yields]:
    """Find the lowest supply of each chip of a study in the folder `out`, as `neuralfuse yield` does: what is there is
    kept.

    Parameters
    ----------
    study: a `neuralfuse.Study`, or a study file (YAML); its key `each_chip` says what is asked.
    out: folder for everything that is made; `sweep` completes it later.
    workers: processes; with more than one, a script calls this below `if __name__ == "__main__":`.
    quiet: without progress on stderr.

    Returns
    -------
    What was found, of each variant of the study: one without variants.

    Raises
    ------
    InputError: a mistake in the study, or a folder that is another's.
    """
    from neuralfuse.sweep.executors import choose
    from neuralfuse.sweep.run import claimed
    from sram.progress import steps

    chosen, folders = choose(workers), claimed(study, Path(out))
    with steps(quiet) as say:
        return [run_descents(folder, chosen, say) for folder in folders.values()]


def asked_of(study: StudyConfig) -> EachChipConfig:
    """What a study asks of its chips; the defaults where it does not say."""
    return study.each_chip or EachChipConfig()


def run_descents(folder: StudyFolder, workers: Workers, say: Say) -> Yields:
    """Find the lowest supply of each chip; writes the three tables, and a figure of each setting into plots/."""
    study = folder.study
    check(study)
    check_counted(study)
    with folder.in_use():
        points = prepare(folder, say)
        images = len(test_set(study.dataset)[1])
        known = partial(descents, study, points, images, asked_of(study).within_points)
        advance = say(f"lowest supply of each chip ({workers.label})")
        measure = partial(plugins.with_allowed, plugins.allowed(), run_chunk, str(folder.path))
        failures = collect(
            folder.rows,
            lambda rows: [task for descent, _ in known(rows) for task in descent.wanted],
            measure,
            workers,
            lambda done, total: advance(done, total, {}),
        )
        found = known(folder.rows.read())
        if failures:
            return Yields(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), [], [], 0.0, failures)
        return _written(folder, found, images)


def _written(folder: StudyFolder, found: list[tuple[Descent, list[Own]]], images: int) -> Yields:
    study, asked, bench = folder.study, asked_of(folder.study), Bench(folder)
    chips, shares, bins, lines = [], [], [], []
    for descent, own in found:
        ladder, level = descent.ladder, np.array([each.level for each in own])
        costs = [bench.forecast(ladder.point, at, study.chips.first) for at in ladder.supplies]
        chips.append(_of_chips(ladder, own))
        shares.append(_of_supplies(ladder, level, costs))
        bins.append(_of_bins(ladder, level, costs, asked.share_of_chips))
        lines.append(_line(ladder, level, asked, study.curve.unit))
    of_chips, of_shares, of_bins = (pd.concat(parts, ignore_index=True) for parts in (chips, shares, bins))
    for name, table in (("", of_chips), ("_shares", of_shares), ("_bins", of_bins)):
        write_atomic(folder.path / f"each_chip{name}.csv", to_csv(table))
    every = sum(len(descent.ladder.supplies) * len(own) * images for descent, own in found)
    measured = sum(each.images for _, own in found for each in own)
    return Yields(of_chips, of_shares, of_bins, lines, _drawn(folder, of_shares), measured / every, [])


def _setting(ladder: Ladder) -> dict[str, str]:
    return {name: getattr(ladder.point, name) for name in SETTING[:-1]} | {"rails": ladder.rails}


def _of_chips(ladder: Ladder, own: list[Own]) -> pd.DataFrame:
    """A row a chip. `voltage`: its own lowest supply, empty where it holds at none; `or_lower`: it holds at the lowest,
    so that its own may lie below."""
    return pd.DataFrame(
        [
            _setting(ladder)
            | {
                "chip": each.chip,
                "voltage": ladder.voltages[each.level - 1] if each.level else np.nan,
                "or_lower": each.level == len(ladder.supplies),
                "images": each.images,
            }
            for each in own
        ]
    )


def _of_supplies(ladder: Ladder, level: np.ndarray, costs: list[Cost]) -> pd.DataFrame:
    """A row a supply: chips that hold there and at all above, the exact interval of their share in the lot, and what an
    inference takes."""
    found = []
    for i, (voltage, cost) in enumerate(zip(ladder.voltages, costs, strict=True)):
        good = int((level > i).sum())
        low, high = exact_share(good, len(level))
        row = {"voltage": voltage, "good": good, "chips": len(level), "own": int((level == i + 1).sum())}
        row |= {"share": good / len(level), "share_low": low, "share_high": high}
        row |= {f"energy_{scope}_pj": getattr(cost, f"energy_{scope}_pj") for scope in SCOPES}
        found.append(_setting(ladder) | row | {f"saving_{s}": getattr(cost, f"saving_{s}") for s in SCOPES})
    return pd.DataFrame(found)


def _of_bins(ladder: Ladder, level: np.ndarray, costs: list[Cost], share: float) -> pd.DataFrame:
    """A row for each scope and number of bins; `bins` empty: each chip at its own."""
    counts = np.bincount(level, minlength=len(ladder.supplies) + 1)
    found = []
    for scope in SCOPES:
        energy = np.array([getattr(cost, f"energy_{scope}_pj") for cost in costs])
        nominal = energy[0] / (1 - getattr(costs[0], f"saving_{scope}"))
        for each in binned(counts, energy, share):
            found.append(_setting(ladder) | {"scope": scope} | _bin(ladder, each, nominal))
    columns = [*SETTING, "scope", *("bins", "voltages", "chips", "energy_pj", "saving", "saved", "saved_low")]
    return pd.DataFrame(found, columns=[*columns, "saved_high"])


def _bin(ladder: Ladder, each: Binned, nominal_pj: float) -> dict[str, object]:
    """`saving`: of the unprotected network's energy at nominal supply; `saved`: of that at the one supply for all."""
    return {
        "bins": np.nan if each.bins is None else each.bins,
        "voltages": " ".join(f"{ladder.voltages[i]:g}" for i in each.supplies),
        "chips": each.chips,
        "energy_pj": each.energy_pj,
        "saving": 1 - each.energy_pj / nominal_pj,
        "saved": each.saved,
        "saved_low": each.low,
        "saved_high": each.high,
    }


def _line(ladder: Ladder, level: np.ndarray, asked: EachChipConfig, unit: str) -> str:
    """Where half of the chips, and the share that is asked for, may go."""
    where = f"{ladder.point.protection} ({ladder.point.structure} maps): "
    holds = (np.arange(len(ladder.supplies)) < level[:, None]).astype(float)
    said = []
    for share in dict.fromkeys((0.5, asked.share_of_chips)):
        found = chip_margin(np.array(ladder.voltages), holds, 1.0, 0.0, share, confidence=CONFIDENCE)
        who = f"{100 * share:g}% of the chips"
        if np.isnan(found.voltage):
            said.append(f"there is no supply at which {who} hold")
            continue
        high = "more than can be told" if np.isnan(found.voltage_high) else f"{found.voltage_high:g}"
        said.append(f"{who} hold at {found.voltage:g} {unit} (95%: {found.voltage_low:g} to {high})")
    nowhere = int((level == 0).sum())
    said += [f"{nowhere} of {len(level)} hold nowhere"] if nowhere else []
    return where + ", ".join(said)


def _drawn(folder: StudyFolder, shares: pd.DataFrame) -> list[Path]:
    """A figure of each network, accelerator and set of rails."""
    written = []
    groups = list(shares.groupby(["network", "accelerator", "rails"], sort=False))
    for key, rows in groups:
        tag = "" if len(groups) == 1 else "-" + slug(*map(str, key))
        figure = own_supplies(rows, folder.study.curve.unit, asked_of(folder.study).within_points)
        written += plots.save(figure, folder.path / "plots", f"own-supply{tag}")
    return written
