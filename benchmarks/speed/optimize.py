"""How much of a grid `neuralfuse optimize` measures, and how much of the optimum's saving it reaches: against random
search, and against optuna's NSGA-II sampler where that is installed (`pip install optuna`).

    python -m benchmarks.speed.optimize [--seeds 10]

Lots of made-up chips with three rails of eight supplies under five protections, 2,560 points; 20 chips of 500 images
to search on, 20 more to confirm the answer. One evaluation is all images of all 20 chips at a point: the others measure
a point so; all of them take the cheapest point that keeps on the chips of the search and on the others. `random, known`
draws only points that are cheaper than the best so far.
"""

import argparse
import functools
import sys
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.speed.made_up_chips import CLEAN, IMAGES, RAILS, MadeUp
from neuralfuse.results.rows import Result
from neuralfuse.sweep.race import Goal, Ledger, Lot, Race
from neuralfuse.sweep.task import Task

SUPPLIES = tuple(np.linspace(1, 0.79, 8).round(3).tolist())
PROTECTIONS = ("none", "code", "fuse", "spare", "hardened")
LOT = Lot(chips=20, held_out=20, images=IMAGES)
BUDGETS = (1, 4, 16)  # of the others, in multiples of what the race took


class Grid:
    """One lot, its race, and which points keep."""

    def __init__(self, seed: int):
        self.lot = MadeUp(seed, SUPPLIES, PROTECTIONS)
        self.race = Race(self.lot.candidates(), Goal(1.0), LOT)
        self.energy = self.race.energy
        self.keeps = functools.cache(self._keeps)
        self.best = next(int(i) for i in np.argsort(self.energy, kind="stable") if self.keeps(int(i)))

    def _keeps(self, i: int) -> bool:
        """On the chips of the search and on the held-out ones, all images."""
        each, most = self.race.candidates[i], round((1 - CLEAN) * IMAGES)  # most that a chip may gain
        for first in (0, LOT.chips):
            rows: list[Result] = []
            for left in reversed(range(LOT.chips)):
                rows += self.lot.measure([Task(each.point, first + len(rows), each.at)])
                lost = sum(row.correct_clean - row.correct for row in rows)
                if lost - left * most > self.race.goal.points / 100 * LOT.chips * IMAGES:
                    return False  # whatever the other chips say
            if not self.race.goal.kept(rows):
                return False
        return True

    def reached(self, i: int | None) -> float:
        """Share of the optimum's saving."""
        return 0.0 if i is None else max(0.0, 1e6 - self.energy[i]) / (1e6 - self.energy[self.best])

    def raced(self) -> tuple[int | None, float, int]:
        """(chosen, evaluations, chips measured at points) of the search."""
        rows: dict[str, Result] = {}
        while True:
            ledger = Ledger(rows, np.inf)
            found = self.race.run(ledger)
            if found is not None:
                searched = {(t.point, t.at, t.chip) for t in ledger.asked.values() if t.chip < LOT.chips}
                return found.chosen, ledger.spent / (LOT.chips * LOT.images), len(searched)
            todo = [task for key, task in ledger.asked.items() if key not in rows]
            rows.update((row.key, row) for row in self.lot.measure(todo))

    def cheapest(self, tried: Iterator[int]) -> int | None:
        """Of the points that were tried, the one of least energy that keeps."""
        kept = [i for i in tried if self.keeps(i)]
        return min(kept, key=lambda i: self.energy[i]) if kept else None

    def random(self, count: int, seed: int, known: bool) -> int | None:
        """After so many evaluations of points drawn at random."""
        best: int | None = None
        for i in map(int, np.random.default_rng(seed).permutation(len(self.energy))):
            if count == 0:
                break
            cheaper = best is None or self.energy[i] < self.energy[best]
            if not cheaper and known:
                continue
            count -= 1
            if cheaper and self.keeps(i):
                best = i
        return best

    def nsga2(self, count: int, seed: int) -> int | None:
        """After so many trials of optuna's NSGA-II, which minimises the energy and the loss over the search's chips."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        place = {(c.point.protection, *c.at.voltages): i for i, c in enumerate(self.race.candidates)}

        def objective(trial: "optuna.Trial") -> tuple[float, float]:
            supplies = [trial.suggest_categorical(rail, SUPPLIES) for rail in sorted(RAILS)]
            i = place[trial.suggest_categorical("protection", PROTECTIONS), *supplies]
            trial.set_user_attr("point", i)
            each = self.race.candidates[i]
            rows = self.lot.measure([Task(each.point, chip, each.at) for chip in range(LOT.chips)])
            return float(self.energy[i]), float(sum(row.correct_clean - row.correct for row in rows))

        study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
        )
        study.optimize(objective, n_trials=count)
        return self.cheapest(trial.user_attrs["point"] for trial in study.trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    seeds = range(parser.parse_args().seeds)
    try:
        import optuna

        version = optuna.__version__
    except ImportError:
        version = None
        print("optuna is not installed: without NSGA-II", file=sys.stderr)
    found: dict[str, list[tuple[float, float, float, bool]]] = {}
    start = time.perf_counter()
    for seed in seeds:
        grid = Grid(seed)
        points = len(grid.energy)
        chosen, evaluations, chips = grid.raced()
        whole = points * LOT.chips
        runs = [("race", evaluations / points, chips / whole, chosen)]
        for times in BUDGETS:
            count = round(evaluations * times)
            others = {"random": grid.random(count, seed, known=False)}
            others["random, known"] = grid.random(count, seed, known=True)
            if version is not None:
                others[f"NSGA-II (optuna {version})"] = grid.nsga2(count, seed)
            runs += [(f"{name} x {times}", count / points, count / points, i) for name, i in others.items()]
        for name, images, visits, i in runs:
            found.setdefault(name, []).append((100 * images, 100 * visits, 100 * grid.reached(i), i == grid.best))
        print(f"seed {seed}: {evaluations:.1f} evaluations, {chips} chips at points", file=sys.stderr)
    print(f"{points:,} points, {LOT.chips} chips x {IMAGES} images; {len(seeds)} lots; within 1 point of clean")
    print("| search | of the grid's images, % | of its chips at points, % | of the optimum's saving, %: mean |", end="")
    print(" least | the optimum itself |\n|---|---|---|---|---|---|")
    for name, each in found.items():
        images, visits, reached, same = np.array(each, dtype=float).T
        cells = f"{images.mean():.2f} | {visits.mean():.2f} | {reached.mean():.1f} | {reached.min():.1f}"
        print(f"| {name} | {cells} | {int(same.sum())} of {len(each)} |")
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
