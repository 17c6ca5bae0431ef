"""The operating point to choose: of all that keep accuracy, the one of least energy."""

from collections.abc import Sequence

import pandas as pd

from neuralfuse.results.pareto import SETTING, SUPPLIES
from neuralfuse.results.scale import ACCURACY, Scale
from neuralfuse.results.statistics import keeps

ACROSS = [key for key in SETTING if key != "rails"]  # what is compared: every rail, clock and protection
SAID = ["protection", "rails", "voltage", *SUPPLIES, "clock_hz", "inference_s", "chips"]
SAID += ["clean_accuracy", "accuracy_mean", "accuracy_low", "accuracy_high", "accuracy_worst_chip"]


def choices(
    summary: pd.DataFrame, scope: str = "chip", points: Sequence[float] | None = None, scale: Scale = ACCURACY
) -> pd.DataFrame:
    """For each network, accelerator and kind of chips: the row of the summary of least energy at a scope whose mean
    accuracy over chips is within so many points of clean (those of the scale, unless told); none where no row is.

    >>> row = {**dict.fromkeys(ACROSS, "x"), **dict.fromkeys(SAID, 0.0), "clean_accuracy": 0.9}
    >>> row |= {"saving_chip": 0.2, "energy_chip_pj": 4.0, "correct_clean": 900, "correct": 890, "total": 1000}
    >>> low = row | {"energy_chip_pj": 3.0, "correct": 880, "rails": "logic 0.9"}
    >>> table = pd.DataFrame([row | {"rails": "weights alone"}, low])
    >>> choices(table, points=[1, 5])[["points", "rails"]].values.tolist()
    [[1, 'weights alone'], [5, 'logic 0.9']]
    """
    energy, saving, found = f"energy_{scope}_pj", f"saving_{scope}", []
    for key, rows in summary.groupby(ACROSS, sort=False):
        for within in points or scale.margins:
            kept = rows[keeps(rows.correct, rows.correct_clean, rows.total, within, scale.per_score)]
            if len(kept):
                best = kept.loc[kept[energy].idxmin()]
                found.append(
                    dict(zip(ACROSS, key, strict=True))
                    | {"scope": scope, "points": within, "energy_pj": best[energy], "saving": best[saving]}
                    | best[SAID].to_dict()
                )
    return pd.DataFrame(found, columns=[*ACROSS, "scope", "points", "energy_pj", "saving", *SAID])
