"""From the rows of results.csv to the tables that people read: summaries over chips, margins, fronts, attainment."""

from collections.abc import Iterator, Mapping, Sequence

import moocore
import numpy as np
import pandas as pd

from neuralfuse.results.scale import ACCURACY, Scale
from neuralfuse.results.statistics import (
    SHARE,
    ChipMargin,
    Estimate,
    chip_margin,
    exact_share,
    keeps,
    margin,
    mean_bounds,
    mean_differences,
    mean_interval,
    mean_over_chips,
    sample_bounds,
    sample_gain_bounds,
)
from neuralfuse.results.trade import Trade, on_the_same_chips, saving_between

SCOPES = ("weight_sram", "sram", "chip", "system")
SETTING = [
    "network",
    "dataset",
    "accelerator",
    "curve",
    "rails",
    "structure",
]  # within one setting protections are compared


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `setting`: its structure, behind whatever else of SETTING there is more than one of.

    >>> rows = pd.DataFrame({"network": ["a", "b"], "structure": "iid", **dict.fromkeys(SETTING[1:5], "x")})
    >>> list(labelled(rows).setting), list(labelled(rows[:1]).setting)
    (['a, iid', 'b, iid'], ['iid'])
    """
    varying = [key for key in SETTING[:-1] if table[key].nunique() > 1]
    words = [", ".join(map(str, row)) for row in table[[*varying, SETTING[-1]]].itertuples(index=False)]
    return table.assign(setting=words)


def clean_accuracy(rows: pd.DataFrame) -> float:
    """Accuracy of the bare network without a fault."""
    return float(rows.clean_accuracy.iloc[0])


SUPPLIES = ("voltage_activations", "voltage_accumulators", "voltage_logic")
COUNTED = ("correct", "correct_clean", "total")
QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
GAIN = ["gain_mean", "gain_low", "gain_high"]
MEANS = [
    "cell_fault_rate",
    "flip_rate",
    "cell_fault_rate_activations",
    *SUPPLIES,
    *(f"energy_{scope}_pj" for scope in SCOPES),
]
MEANS += [*(f"saving_{scope}" for scope in SCOPES), "cycles", "clock_hz", "inference_s", "inferences_per_s"]
MEANS += ["energy_delay_chip_pj_s"]


def summarise(results: pd.DataFrame, points: float | None = None, scale: Scale = ACCURACY) -> pd.DataFrame:
    """One row per setting, protection and voltage: accuracy over chips with its interval, yield, worst chip, rates,
    energy, savings and cycles as means over chips, and the paired difference to the unprotected network (`gain_*`).

    `yield` is the share of chips within `points` of clean, of the scale; the widest of its margins unless told.
    """
    results = results.reset_index(drop=True).infer_objects()
    setting = results.groupby(SETTING, sort=False)
    found = results.assign(clean=results.clean_accuracy, setting=setting.ngroup()).sort_values("setting", kind="stable")
    chip = ["setting", "voltage", "chip"]
    bare = found[found.protection == "none"].set_index(chip).accuracy.rename("bare")
    found = found.join(bare, on=chip).reset_index(drop=True)
    found["point"] = found.groupby(["setting", "protection", "voltage"], sort=False).ngroup()
    order = np.argsort(found.point.to_numpy(), kind="stable")
    _, first, chips = np.unique(found.point.to_numpy()[order], return_index=True, return_counts=True)
    parts = [  # points of equally many chips at once: hundreds of protections take little longer than one
        _over_chips(found, order[first[chips == n, None] + np.arange(n)], points or scale.margins[-1], scale)
        for n in np.unique(chips)
    ]
    table = pd.concat(parts).set_index("point").sort_index().reset_index(drop=True)
    return table.drop(columns=GAIN) if table.gain_mean.isna().all() else table


def _over_chips(found: pd.DataFrame, rows: np.ndarray, points: float, scale: Scale) -> pd.DataFrame:
    """Points that equally many chips were measured at; `rows` (points, chips) are their numbers in `found`."""

    def of(column: str) -> np.ndarray:
        return found[column].to_numpy()[rows].T

    table = found.loc[rows[:, 0], ["point", *SETTING, "protection", "voltage"]].reset_index(drop=True)
    accuracy, clean, n, images = of("accuracy"), of("clean")[0], rows.shape[1], of("total")
    bounds, sampled = mean_bounds(accuracy, within=scale.bounds), (images < of("test_images")).any(axis=0)
    if sampled.any():
        lost, gained = ((of(name) - of("correct_both")).sum(axis=0) for name in ("correct_clean", "correct"))
        bounds = np.where(sampled, sample_bounds(accuracy, lost, gained, images.sum(axis=0)), bounds)
    one_by_one = np.where(sampled, np.nan, accuracy)  # a sample says too little of the chip alone
    counts = {name: of(name) for name in COUNTED}
    good = keeps(counts["correct"], counts["correct_clean"], counts["total"], points, scale.per_score).sum(axis=0)
    gain = np.where(table.protection == "none", np.nan, accuracy - of("bare"))
    gain_bounds = mean_bounds(gain, within=scale.differences)
    if sampled.any():
        gain_bounds = np.where(sampled, sample_gain_bounds(gain, images), gain_bounds)
    shares = np.transpose([exact_share(k, n) for k in good])
    columns = {
        "chips": n,
        "images": images.mean(axis=0),
        **{name: found.sum(axis=0) for name, found in counts.items()},
        "clean_accuracy": clean,
        "accuracy_mean": mean_over_chips(accuracy),
        "accuracy_std": accuracy.std(axis=0, ddof=1) if n > 1 else np.nan,
        **dict(zip(("accuracy_low", "accuracy_high"), bounds, strict=True)),
        "accuracy_worst_chip": one_by_one.min(axis=0),
        **{f"accuracy_{name}": np.quantile(one_by_one, q, axis=0) for name, q in QUANTILES.items()},
        "yield": np.where(sampled, np.nan, good / n),
        **{
            name: np.where(sampled, np.nan, bound)
            for name, bound in zip(("yield_low", "yield_high"), shares, strict=True)
        },
        **{name: mean_over_chips(of(name)) for name in MEANS},
        **dict(zip(GAIN, (mean_over_chips(gain), *gain_bounds), strict=True)),
    }
    return table.assign(**columns)


def per_million_parameters(summary: pd.DataFrame, parameters: Mapping[str, int]) -> pd.DataFrame:
    """The summary with `parameters` of each protection's transform, and the points won back per million of them
    (Sun et al., arXiv 2306.16869, table 3); NaN without a transform."""
    if "gain_mean" not in summary:
        return summary
    count = summary.protection.map(dict(parameters)).astype(float)
    return summary.assign(parameters=count, gain_points_per_million_parameters=100e6 * summary.gain_mean / count)


def trades(results: pd.DataFrame, *scopes: str) -> Iterator[tuple[dict[str, str], float, dict[str, dict[str, Trade]]]]:
    """Each setting, its clean accuracy, and the trade of each protection at each of `scopes`, in the order of the
    file."""
    for key, group in results.groupby(SETTING, sort=False):
        found = {str(name): Trade.at_scopes(rows, *scopes) for name, rows in group.groupby("protection", sort=False)}
        yield dict(zip(SETTING, key, strict=True)), clean_accuracy(group), found


def headline(results: pd.DataFrame, *scopes: str, scale: Scale = ACCURACY) -> pd.DataFrame:
    """Lowest voltage, and mean saving there, at which accuracy stays within the scale's margins of clean (`points`):
    per scope (all unless told), setting, protection."""
    table = []
    for setting, clean, found in trades(results, *(scopes or SCOPES)):
        for name, at in found.items():
            one = next(iter(at.values()))
            for within in scale.margins:  # where accuracy holds is the same at every scope
                held = margin(one.voltages, one.accuracy, one.saving, clean, within, scale.per_score)
                of = {scope: held.saving_of(trade.voltages, trade.saving) for scope, trade in at.items()}
                table += [setting | {"protection": name, "scope": scope} | m.__dict__ for scope, m in of.items()]
    return pd.DataFrame(table).sort_values("scope", key=lambda s: s.map(SCOPES.index), kind="stable", ignore_index=True)


SHARES = (0.5, 0.9)  # of chips


def yields(results: pd.DataFrame, scale: Scale = ACCURACY, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Lowest swept voltage at which at least so many chips stay within the scale's margins, with an interval that
    is exact for any lot (`chip_margin`): per setting, protection, points, share. Of chips that were measured on all
    images: of a sample's say too little of each."""
    table = [
        {**setting, "protection": name}
        | chip_margin(trade.voltages, trade.accuracy, clean, within, share, scale.per_score).__dict__
        for setting, clean, found in trades(whole(results), SCOPES[0])
        for name, at in found.items()
        for trade in at.values()
        for within in scale.margins
        for share in shares
    ]
    return pd.DataFrame(table, columns=[*SETTING, "protection", *ChipMargin.__dataclass_fields__])


def whole(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of protections, in a setting, whose chips were all measured on all images."""
    sampled = (results.total < results.test_images).groupby([results[key] for key in (*SETTING, "protection")])
    return results[~sampled.transform("any")]


def front(summary: pd.DataFrame, scope: str = "weight_sram") -> pd.DataFrame:
    """Of one setting's summary: the rows that no other beats in both mean accuracy and energy saving.

    >>> table = pd.DataFrame({"saving_sram": [0.1, 0.2, 0.15], "accuracy_mean": [0.9, 0.8, 0.7]})
    >>> front(table, "sram").index.tolist()
    [0, 1]
    """
    values = summary[[f"saving_{scope}", "accuracy_mean"]].to_numpy(float)
    return summary[moocore.is_nondominated(values, maximise=True)].sort_values(f"saving_{scope}")


def attainment(rows: pd.DataFrame, scope: str, percentiles: Sequence[float] = (5, 50, 95)) -> dict[float, np.ndarray]:
    """The fronts that so many per cent of the chips reach or beat, each as (saving, accuracy) corners, saving rising.

    Each chip has a front of its own; their empirical attainment function is the band (Fonseca, Grunert da Fonseca
    2010).
    """
    points, sets = _by_chip(rows, scope)
    surfaces = moocore.eaf(-points, sets + 1, percentiles=list(percentiles))
    result = {}
    for percentile in percentiles:
        surface = -surfaces[surfaces[:, 2] == percentile][:, :2]
        result[percentile] = surface[np.argsort(surface[:, 0])]
    return result


def hypervolume(rows: pd.DataFrame, scope: str) -> Estimate:
    """Area under each chip's front of saving (from 0) and accuracy (from 0), mean over chips with its interval."""
    points, sets = _by_chip(rows, scope)
    fronts = np.split(points, np.flatnonzero(np.diff(sets)) + 1)
    volumes = [moocore.hypervolume(front, ref=[0.0, 0.0], maximise=True) for front in fronts]
    return mean_interval(np.array(volumes), within=SHARE)


def _by_chip(rows: pd.DataFrame, scope: str) -> tuple[np.ndarray, np.ndarray]:
    """(saving, accuracy) of every chip and voltage (n, 2), those of one chip together, and which chip it is (n,)."""
    _, chip = np.unique(rows.chip.to_numpy(), return_inverse=True)
    order = np.argsort(chip, kind="stable")
    return rows[[f"saving_{scope}", "accuracy"]].to_numpy(float)[order], chip[order]


EQUAL_SAVINGS = (0.1, 0.2, 0.3, 0.4, 0.5)


def at_equal(results: pd.DataFrame, scale: Scale = ACCURACY) -> pd.DataFrame:
    """Each protection against the unprotected network: energy saving at equal accuracy (`at`: accuracy, the scale's
    margins below clean), accuracy at equal energy (`at`: energy saving); every setting and scope, paired over chips.

    Energies no voltage of both was swept at are left out, and protections that share no chip with the unprotected
    network.
    """
    table = []
    for setting, clean, found in trades(results, *SCOPES):
        below = [clean - points / scale.per_score for points in scale.margins]
        control = found.pop("none", {})
        for protection, at in found.items():
            pairs = {scope: on_the_same_chips(at[scope], control[scope]) for scope in control}
            apart = {
                scope: np.stack([ours.accuracy_at(s) - theirs.accuracy_at(s) for s in EQUAL_SAVINGS], axis=1)
                for scope, (ours, theirs) in pairs.items()
            }
            apart_all = np.concatenate(list(apart.values()), axis=1) if apart else np.zeros((0, 0))
            of = mean_differences(apart_all, scale.differences) if apart else []
            between = [saving_between(accuracy, *pairs.values()) for accuracy in below] if pairs else []
            for i, scope in enumerate(pairs):
                more = zip(EQUAL_SAVINGS, of[i * len(EQUAL_SAVINGS) :], strict=False)
                gains = [("saving", accuracy, gain[i]) for accuracy, gain in zip(below, between, strict=True)]
                gains += [("accuracy", saving, gain) for saving, gain in more]
                for what, level, gain in gains:
                    record = {"protection": protection, "scope": scope, "gain_in": what, "at": level}
                    record |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "chips": gain.chips}
                    table.append(setting | record)
    columns = [*SETTING, "protection", "scope", "gain_in", "at", "gain", "gain_low", "gain_high", "chips"]
    return pd.DataFrame(table, columns=columns).dropna(subset=["gain"]).reset_index(drop=True)
