"""The operating point and protection to choose, without the whole grid: a search of a study's folder, what it leaves
there, and what each of its choices is worth. `neuralfuse.sweep.race` decides; this prepares, runs and writes."""

import functools
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP
from neuralfuse.report.wording import choice_lines
from neuralfuse.results.choice import choices
from neuralfuse.results.pareto import summarise
from neuralfuse.results.rows import Result
from neuralfuse.results.scale import ACCURACY
from neuralfuse.results.tables import to_csv
from neuralfuse.study.check import check
from neuralfuse.study.check_task import check_counted
from neuralfuse.study.config import OptimizeConfig, StudyConfig
from neuralfuse.study.cost import Cost
from neuralfuse.study.data import test_set
from neuralfuse.study.files import dump_study, parse_study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point
from neuralfuse.study.making import Say
from neuralfuse.study.prepare import prepare
from neuralfuse.study.rails import Role
from neuralfuse.study.supplies import memory_supplies, operating_points, roles_of, supply_of
from neuralfuse.sweep.bench import Bench, run_chunk
from neuralfuse.sweep.collect import Failure, collect
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.plan import plan
from neuralfuse.sweep.race import FAILED, KEPT, Candidate, Found, Goal, Ledger, Lot, Race
from neuralfuse.sweep.task import Task
from simulator import userfile
from simulator.operating_point import OperatingPoint
from sram import plugins
from sram.errors import InputError
from sram.files import write_atomic

Sides = dict[tuple[float, str | None], Found | None]  # by margin, and by what is put back


@dataclass(frozen=True)
class Optimum:
    """What a search found: files, sentences for a person, and tables.

    `front`: the best point for each margin; `worth`: the best one with one rail, or the protection, put back. `share`:
    of the grid's images (points x chips x images) that were measured; `settled` False where the budget left points
    open.
    """

    study: Path
    lines: list[str]
    front: pd.DataFrame
    worth: pd.DataFrame
    share: float
    settled: bool
    failures: list[Failure]


@dataclass(frozen=True, eq=False)
class Setting:
    """A network on an accelerator, with chips of one structure: what the search is done for."""

    study: StudyConfig
    network: str
    accelerator: str
    structure: str
    candidates: list[Candidate]
    costs: list[Cost]
    lot: Lot

    @property
    def name(self) -> str:
        """Of the variant in optimum.yaml."""
        return "-".join("".join(c if c.isalnum() else "_" for c in part) for part in self.names)

    @property
    def names(self) -> tuple[str, str, str]:
        """Network, accelerator, structure."""
        return self.network, self.accelerator, self.structure

    @functools.cached_property
    def fast(self) -> list[int]:
        """Candidates that are fast enough. InputError where none is."""
        least = goals_of(self.study).inferences_per_second or 0.0
        found = [i for i, cost in enumerate(self.costs) if 1 / cost.inference_s >= least]
        if not found:
            most = max(1 / cost.inference_s for cost in self.costs)
            allowed = f"at most {_floor(most):g}, the fastest point of the grid on {self.accelerator}"
            raise InputError("study", "optimize.inferences_per_second", least, allowed)
        return found

    @functools.lru_cache  # noqa: B019
    def race(self, points: float, put_back: str | None = None) -> Race | None:
        """The search within so many points of clean; where `put_back` is a role or `protection`, only among points with
        that at its highest supply, or without one. None where there are no such points."""
        goal, held_out = Goal(points, goals_of(self.study).share_of_chips or 0.0), self.lot.held_out
        if put_back is not None or points != goals_of(self.study).accuracy_points:
            held_out = 0
        some = [self.candidates[i] for i in self.fast if put_back is None or self._is_back(i, put_back)]
        return Race(some, goal, replace(self.lot, held_out=held_out)) if some else None

    def supply(self, i: int, role: Role) -> float:
        """Of a candidate, in the unit of its curve."""
        return supply_of(self.study, self.accelerator, self.candidates[i].at, role)

    def _is_back(self, i: int, what: str) -> bool:
        if what == "protection":
            return self.candidates[i].point.protection == "none"
        return self.supply(i, what) == max(self.supply(k, what) for k in self.fast)  # type: ignore[arg-type]

    @property
    def choices(self) -> list[str]:
        """What can be put back."""
        return [*roles_of(self.study), "protection"]

    def cost_of(self, found: Candidate) -> Cost:
        """Of a candidate."""
        return self._costs[found.point, found.at]

    @functools.cached_property
    def _costs(self) -> dict[tuple[Point, OperatingPoint], Cost]:
        return {(each.point, each.at): cost for each, cost in zip(self.candidates, self.costs, strict=True)}


def optimize(study: StudyConfig | str | Path, out: str | Path, workers: int = 1, quiet: bool = False) -> list[Optimum]:
    """Search a study's grid in the folder `out`, as `neuralfuse optimize` does: what is there is kept.

    Parameters
    ----------
    study: a `neuralfuse.Study`, or a study file (YAML); its key `optimize` says what is looked for.
    out: folder for everything the search makes; `sweep` completes it later.
    workers: processes; with more than one, a script calls this below `if __name__ == "__main__":`.
    quiet: without progress on stderr.

    Returns
    -------
    What was found, of each variant of the study: one without variants.

    Raises
    ------
    InputError: a mistake in the study, a folder that is another's, or constraints that no point of the grid meets.
    """
    from neuralfuse.sweep.executors import choose
    from neuralfuse.sweep.run import claimed
    from sram.progress import steps

    chosen, folders = choose(workers), claimed(study, Path(out))
    with steps(quiet) as say:
        return [run_search(folder, chosen, say) for folder in folders.values()]


def goals_of(study: StudyConfig) -> OptimizeConfig:
    """What a study looks for; the defaults where it does not say."""
    return study.optimize or OptimizeConfig()


def check_search(study: StudyConfig) -> None:
    """Refuse a study whose grid has no single best point, or too few measured chips to confirm it on."""
    check(study)
    check_counted(study)
    if study.chips.numbers.stop + study.chips.evaluation > FIRST_TRAINING_CHIP:
        allowed = f"at most {(FIRST_TRAINING_CHIP - study.chips.first) // 2:,}: as many more confirm the answer"
        raise InputError("study", "chips.evaluation", study.chips.evaluation, allowed)
    for protection in study.protections:
        fit = protection.neuralfuse.calibrate if protection.neuralfuse else None
        if fit is not None and fit.at != "each":
            key = f"protections.{protection.name}.neuralfuse.calibrate.at"
            raise InputError("study", key, fit.at, "each: the fit to a point may not depend on which others there are")
    both = study.model_copy(update={"chips": study.chips.model_copy(update={"evaluation": 2 * study.chips.evaluation})})
    if study.sram.map is not None or any(own.map is not None for own in study.memories.values()):
        try:
            check(both)
        except InputError as error:
            allowed = f"half of the measured chips: as many more confirm the answer ({error.allowed})"
            raise InputError("study", "chips.evaluation", study.chips.evaluation, allowed) from None


class Search:
    """A prepared folder's searches, one for each setting; `plan` is pure."""

    def __init__(self, folder: StudyFolder, points: list[Point], say: Say):
        self.folder, self.study, self.goals = folder, folder.study, goals_of(folder.study)
        chips, images = self.study.chips.evaluation, len(test_set(self.study.dataset)[1])
        self.lot, self.settings = Lot(chips, chips, images, self.study.chips.first), []
        bench, advance, known = Bench(folder), say("energy of every point"), 0
        groups: dict[tuple[str, str, str], list[Point]] = {}
        for point in points:
            groups.setdefault((point.network, point.accelerator, point.structure), []).append(point)
        total = sum(len(of) * len(operating_points(self.study, key[1])) for key, of in groups.items())
        for key, of in groups.items():
            candidates, costs = [], []
            for point in of:
                for at in operating_points(self.study, point.accelerator):
                    cost = bench.forecast(point, at, self.study.chips.first)
                    energy, ease = getattr(cost, f"energy_{self.goals.scope}_pj"), self._ease(point, at, cost)
                    candidates.append(Candidate(point, at, ease, energy))
                    costs.append(cost)
                    known += 1
                advance(known, total, {})
            self.settings.append(Setting(self.study, *key, candidates, costs, self.lot))
        self.grid = total * chips * images

    def _ease(self, point: Point, at: OperatingPoint, cost: Cost) -> tuple[float, ...]:
        """What makes a point more accurate. A clock that no sum misses, and the logic with it, changes no answer."""
        memories = tuple(voltage for _, voltage in memory_supplies(self.study, point.accelerator, at))
        if not at.late_sums:
            return memories
        if at.clock_hz == "follow":
            return (*memories, math.inf, math.inf)
        return (*memories, supply_of(self.study, point.accelerator, at, "logic"), -cost.clock_hz)

    def main(self, setting: Setting) -> Race:
        """The search that was asked for."""
        race = setting.race(self.goals.accuracy_points)
        assert race is not None
        return race

    def sides(self, setting: Setting) -> dict[tuple[float, str | None], Race]:
        """Searches beside it: for other margins, and with one choice put back."""
        points = self.goals.accuracy_points
        keys = [(margin, None) for margin in ACCURACY.margins if margin != points] + [
            (points, what) for what in setting.choices
        ]
        return {key: race for key in keys if (race := setting.race(*key)) is not None}

    def run(self, rows: dict[str, Result]) -> tuple[Ledger, dict[str, Found], dict[str, Sides]]:
        """As far as the rows go: what was asked for, and what was found, also beside it, by name of the setting."""
        ledger, found, sides = Ledger(rows, self.goals.evaluations * self.grid), {}, {}
        for setting in self.settings:
            if (end := self.main(setting).run(ledger)) is not None:
                found[setting.name] = end
        if len(found) == len(self.settings):
            for setting in self.settings:
                if found[setting.name].chosen is not None:
                    sides[setting.name] = {key: race.run(ledger) for key, race in self.sides(setting).items()}
        return ledger, found, sides

    def plan(self, rows: dict[str, Result]) -> list[Task]:
        """What is wanted now."""
        return list(self.run(rows)[0].asked.values())


def run_search(folder: StudyFolder, workers: Workers, say: Say) -> Optimum:
    """Search a study's grid in its folder; writes optimum.yaml, search.csv, search_front.csv, search_worth.csv, and
    results.csv of the points that are measured on all chips and images. InputError where no point meets the
    constraints."""
    check_search(folder.study)
    with folder.in_use():
        points = prepare(folder, say)
        search = Search(folder, points, say)
        for setting in search.settings:
            _ = setting.fast
        advance = say(f"search ({workers.label})")
        measure = partial(plugins.with_allowed, plugins.allowed(), run_chunk, str(folder.path))
        failures = collect(folder.rows, search.plan, measure, workers, lambda done, total: advance(done, total, {}))
        return _written(search, points, failures)


def _written(search: Search, points: list[Point], failures: list[Failure]) -> Optimum:
    folder, rows = search.folder, search.folder.rows.read()
    ledger, ends, sides = search.run(rows)
    tables = [_searched(search, setting, ends[setting.name]) for setting in search.settings if setting.name in ends]
    if tables:
        write_atomic(folder.path / "search.csv", to_csv(pd.concat(tables, ignore_index=True)))
    folder.write_results(_complete(plan(search.study, points, rows), rows))
    if failures:
        return Optimum(folder.path / "optimum.yaml", [], pd.DataFrame(), pd.DataFrame(), 0.0, False, failures)
    for setting in search.settings:
        if ends[setting.name].chosen is None:
            raise _impossible(search, setting, ends[setting.name])
    fronts, worths, lines = [], [], []
    for setting in search.settings:
        front, worth = _beside(search, setting, ends[setting.name], sides[setting.name])
        fronts.append(front)
        worths.append(worth)
        lines += _lines(search, setting, ends[setting.name])
    front, worth = (pd.concat(parts, ignore_index=True) for parts in (fronts, worths))
    write_atomic(folder.path / "search_front.csv", to_csv(front))
    write_atomic(folder.path / "search_worth.csv", to_csv(worth))
    study = write_atomic(folder.path / "optimum.yaml", _optimum(search, ends))
    settled = all(end.settled for end in ends.values())
    return Optimum(study, lines, front, worth, ledger.spent / search.grid, settled, failures)


def _complete(tasks: list[Task], rows: dict[str, Result]) -> list[str]:
    """Keys of the points of which nothing is missing."""
    missing = {(task.point, task.at) for task in tasks if task.key not in rows}
    return [task.key for task in tasks if (task.point, task.at) not in missing]


def _said(setting: Setting, found: Candidate) -> dict[str, Any]:
    """A point as the columns of a table."""
    cost, scope = setting.cost_of(found), goals_of(setting.study).scope
    supplies: dict[str, float] = {
        role: supply_of(setting.study, setting.accelerator, found.at, role) for role in roles_of(setting.study)
    }
    return {
        **dict(zip(("network", "accelerator", "structure"), setting.names, strict=True)),
        "protection": found.point.protection,
        **supplies,
        "clock_hz": cost.clock_hz,
        "scope": scope,
        "energy_pj": found.energy_pj,
        "saving": getattr(cost, f"saving_{scope}"),
        "inferences_per_s": 1 / cost.inference_s,
    }


def _searched(search: Search, setting: Setting, end: Found) -> pd.DataFrame:
    """Every point of the grid: what was measured of it, and why it was dropped or kept."""
    race, fast = search.main(setting), set(setting.fast)
    place = {i: k for k, i in enumerate(setting.fast)}
    found = []
    for i, candidate in enumerate(setting.candidates):
        row = _said(setting, candidate) | dict.fromkeys(("chips", "images"), 0)
        row |= dict.fromkeys(("loss_points", "loss_low", "loss_high"), math.nan)
        k = place.get(i)
        verdict = None if k is None else end.verdicts.get(k)
        if verdict is not None:
            row |= {"chips": verdict.chips, "images": verdict.images, "loss_points": verdict.loss}
            row |= {"loss_low": verdict.low, "loss_high": verdict.high}
        state, why = ("dropped", "too slow") if i not in fast or k is None else _why(race, end, k)
        found.append(row | {"state": state, "why": why})
    return pd.DataFrame(found)


def _why(race: Race, end: Found, k: int) -> tuple[str, str]:
    """(state, why) of a candidate."""
    verdict = end.verdicts.get(k)
    if k == end.chosen:
        return "chosen", "least energy of those that keep"
    if verdict is not None:
        seen = f"measured{' on held-out chips' if verdict.held_out else ''}"
        return ("dropped", f"{seen}: loses too much") if verdict.state == FAILED else ("kept", f"{seen}: but dearer")
    if end.state[k] == FAILED:
        return "dropped", f"loses too much: so does {_point(race.candidates[end.by[k]])}, which is nowhere lower"
    if end.state[k] == KEPT:
        return "kept", f"not measured: so does {_point(race.candidates[end.by[k]])}, which is nowhere higher"
    dearer = end.chosen is not None and race.energy[k] >= race.energy[end.chosen]
    return ("not tried", "dearer than the chosen") if dearer else ("open", "the budget was spent")


def _point(found: Candidate) -> str:
    supplies = ", ".join(f"{supply.rail} {supply.voltage:g}" for supply in found.at.supplies)
    return f"{supplies} ({found.point.protection})"


def _beside(search: Search, setting: Setting, end: Found, sides: Sides) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(front, worth): the best point for each margin, and with each choice put back."""
    race, points = search.main(setting), search.goals.accuracy_points
    assert end.chosen is not None
    best = race.candidates[end.chosen]
    ends = {key: (side, sides[key]) for key, side in search.sides(setting).items()} | {(points, None): (race, end)}
    front, worth = [], []
    for (margin, what), (side, found) in sorted(ends.items(), key=lambda each: (each[0][0], each[0][1] or "")):
        chosen = None if found is None or found.chosen is None else side.candidates[found.chosen]
        if what is None:
            if chosen is not None and found is not None and found.chosen is not None:
                loss = found.verdicts[found.chosen].loss
                front.append({"points": margin} | _said(setting, chosen) | {"loss_points": loss})
        elif chosen is None or chosen != best:
            more = math.nan if chosen is None else chosen.energy_pj / best.energy_pj - 1
            said = {} if chosen is None else _said(setting, chosen)
            worth.append({"put_back": what, "costs_more": more, "settled": found is not None and found.settled} | said)
    return pd.DataFrame(front), pd.DataFrame(worth)


def _lines(search: Search, setting: Setting, end: Found) -> list[str]:
    """The answer for a person, by the held-out chips."""
    study, goals = search.study, search.goals
    frame = search.folder.rows.frame(row.key for row in end.held_out)
    choice = choices(summarise(frame), goals.scope, [goals.accuracy_points])
    chips = search.lot.held_out
    lines = choice_lines(choice, study.curve.unit, goals.accuracy_points)
    said = (
        f"Accuracy is that of {chips} chips that the search has not seen, all {search.lot.images} test images of each"
    )
    if goals.share_of_chips is not None:
        good = Goal(goals.accuracy_points).good(end.held_out)
        said += f"; {100 * good:.0f}% of them are within {goals.accuracy_points:g} points, each for itself"
    return [*lines, f"{said}."]


def _impossible(search: Search, setting: Setting, end: Found) -> InputError:
    """Which constraint no point meets, and the nearest that can be met."""
    goals = search.goals
    if end.nearest is None:
        return InputError("study", "optimize.evaluations", goals.evaluations, "more: no point was measured within it")
    verdict, found = end.verdicts[end.nearest], search.main(setting).candidates[end.nearest]
    where = f"{_point(found)} of {', '.join(setting.names)}"
    if not end.settled:
        return InputError(
            "study", "optimize.evaluations", goals.evaluations, f"more: none keeps so far; nearest {where}"
        )
    if goals.share_of_chips is not None and verdict.loss <= goals.accuracy_points:
        allowed = f"at most {_floor(verdict.good):g}: the nearest point, {where}, has so many chips within the points"
        return InputError("study", "optimize.share_of_chips", goals.share_of_chips, allowed)
    allowed = f"{math.ceil(100 * verdict.loss) / 100:g} or more: so much loses the nearest point, {where}"
    return InputError("study", "optimize.accuracy_points", goals.accuracy_points, allowed)


def _floor(value: float) -> float:
    """To three digits, downwards.

    >>> _floor(1234.9), _floor(0.95)
    (1230.0, 0.95)
    """
    step = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1.0
    return round(math.floor(value / step + 1e-9) * step, 12)


def _optimum(search: Search, ends: dict[str, Found]) -> str:
    """The chosen point as a study on the held-out chips: one, or a variant for each setting."""
    studies = {}
    for setting in search.settings:
        end = ends[setting.name]
        assert end.chosen is not None
        studies[setting.name] = _one_point(search.folder, setting, search.main(setting).candidates[end.chosen])
    first = next(iter(studies.values()))
    if len(studies) == 1:
        return dump_study(parse_study(first, "optimum.yaml"))
    return userfile.text({**first, "variants": studies})


def _one_point(folder: StudyFolder, setting: Setting, found: Candidate) -> dict[str, Any]:
    """The study of one point, with the weights that the search has measured."""
    study = folder.study
    kept = study.model_dump(mode="json", exclude={"rails", "together", "adaptive", "optimize", "voltages"})
    network = study.network(setting.network).model_dump(mode="json")
    network |= {"checkpoint": str(folder.network_file(setting.network).resolve()), "start": None}
    protection = study.protection(found.point.protection)
    said = protection.model_dump(mode="json")
    if protection.neuralfuse is not None and not protection.neuralfuse.starts_untrained:
        file = str(folder.generator_file(setting.network, protection).resolve())
        said["neuralfuse"] |= {"checkpoint": file, "train_on": None}
    at: dict[str, Any] = {role: supply_of(study, setting.accelerator, found.at, role) for role in roles_of(study)}
    chips = {**kept["chips"], "first": study.chips.numbers.stop}
    structures = kept["sram"]["structures"] if study.sram.map is not None else [setting.structure]
    return kept | {
        "name": f"{study.name}: optimum",
        "networks": [network],
        "accelerators": [setting.accelerator],
        "sram": kept["sram"] | {"structures": structures},
        "voltages": [at["weights"]],
        "operating_points": [at | {"clock": found.at.clock_hz}],
        "protections": [said],
        "chips": chips,
    }
