"""Does the search find what the whole grid says, with a fraction of it, and the same from everywhere?"""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from benchmarks.speed.made_up_chips import IMAGES, MadeUp
from neuralfuse.results.rows import Rows
from neuralfuse.sweep.collect import collect
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.race import FAILED, KEPT, OPEN, Candidate, Found, Goal, Ledger, Lot, Race, Verdict
from neuralfuse.sweep.task import Task
from tests.conftest import ROOT

LOT = Lot(chips=12, held_out=12, images=IMAGES)


def raced(race: Race, measure, limit=np.inf) -> tuple[Found, Ledger]:
    """To its end, in this process, round by round."""
    rows: dict = {}
    while True:
        ledger = Ledger(rows, limit)
        found = race.run(ledger)
        if found is not None:
            return found, ledger
        todo = [task for key, task in ledger.asked.items() if key not in rows]
        assert todo
        rows.update((row.key, row) for row in measure(todo))


def by_brute_force(race: Race, lot: MadeUp) -> int:
    """The least energy that keeps on the chips of the search and on the held-out ones, all of them measured."""
    for i in np.argsort(race.energy, kind="stable"):
        each = race.candidates[i]
        search, held_out = range(LOT.chips), range(LOT.chips, LOT.chips + LOT.held_out)
        if all(
            race.goal.kept(lot.measure([Task(each.point, c, each.at) for c in chips])) for chips in (search, held_out)
        ):
            return int(i)
    raise AssertionError("none keeps")


@pytest.mark.parametrize("seed", range(6))
def test_the_optimum_of_the_whole_grid_with_a_fraction_of_it(seed):
    """Of 375 points; SURE lets a search of some 30 samples err about once in ten, of which next to none is at the
    optimum: none of these six seeds does."""
    lot = MadeUp(seed)
    race = Race(lot.candidates(), Goal(1.0), LOT)
    found, ledger = raced(race, lot.measure)
    assert found.settled
    assert found.chosen == by_brute_force(race, lot)
    assert ledger.spent < 0.06 * len(race.candidates) * LOT.chips * LOT.images


@pytest.mark.parametrize(("loss", "low", "follows"), [(1.9, 0.2, False), (2.1, 0.2, True), (1.5, 1.1, True)])
def test_a_point_that_misses_by_little_settles_itself_alone(loss, low, follows):
    """On a real chip 1.67 points were lost at 0.9 of the weights' supply and 2.11 at nominal, within 2 the first."""
    race = Race(MadeUp(0, (1.0, 0.9), ("none",)).candidates(), Goal(1.0), LOT)
    top = int(race.ease.sum(axis=1).argmax())
    state, by = race._settled({top: Verdict(FAILED, 12, IMAGES, loss, low, 3.0, good=0.5, whole=True)})
    others = np.delete(np.arange(len(state)), top)
    assert state[top] == FAILED
    assert (state[others] == (FAILED if follows else OPEN)).all()
    assert (by[others] == (top if follows else -1)).all()


@pytest.mark.parametrize("seed", range(2))
def test_with_a_share_of_the_chips(seed):
    lot = MadeUp(seed)
    race = Race(lot.candidates(), Goal(2.0, share=0.9), LOT)
    found, _ = raced(race, lot.measure)
    assert found.chosen == by_brute_force(race, lot)
    assert race.energy[found.chosen] >= race.energy[raced(Race(race.candidates, Goal(2.0), LOT), lot.measure)[0].chosen]


def test_a_search_that_was_killed_and_one_of_a_pool_end_alike(tmp_path):
    lot = MadeUp(3, (1.0, 0.9, 0.85), ("none", "code"))
    race = Race(lot.candidates(), Goal(1.0), LOT)
    expected, ledger = raced(race, lot.measure)

    def plan(rows):
        again = Ledger(rows, np.inf)
        race.run(again)
        return list(again.asked.values())

    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.neuralfuse.sweep.test_race import *
        lot = MadeUp(3, (1.0, 0.9, 0.85), ("none", "code"))
        race = Race(lot.candidates(), Goal(1.0), LOT)
        def plan(rows):
            again = Ledger(rows, np.inf)
            race.run(again)
            return list(again.asked.values())
        collect(Rows(Path(sys.argv[1])), plan, lot.measure, choose(workers=1), lambda done, _: print(done, flush=True))
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > len(ledger.asked) // 3:
                process.kill()
                break
    assert 0 < len(Rows(tmp_path / "killed").read()) < len(ledger.asked)
    for name, workers in (("killed", 1), ("pool", 2)):
        assert collect(Rows(tmp_path / name), plan, lot.measure, choose(workers=workers)) == []
        rows = Rows(tmp_path / name).read()
        assert set(rows) == set(ledger.asked)
        found = race.run(Ledger(rows, np.inf))
        assert found is not None
        assert (found.chosen, found.verdicts) == (expected.chosen, expected.verdicts)


def test_rows_that_others_measured_change_nothing():
    lot = MadeUp(1, supplies=(1.0, 0.9, 0.85))
    race = Race(lot.candidates(), Goal(1.0), LOT)
    expected, ledger = raced(race, lot.measure)
    others = lot.measure([Task(each.point, 0, each.at, (0, 32)) for each in race.candidates])
    rows = {row.key: row for row in [*lot.measure(list(ledger.asked.values())), *others]}
    found = race.run(Ledger(rows, np.inf))
    assert found is not None
    assert found.verdicts == expected.verdicts


def test_where_none_keeps_the_nearest_is_measured_on_everything():
    lot = MadeUp(0, supplies=(0.86, 0.85))
    race = Race(lot.candidates(), Goal(1.0), LOT)
    found, _ = raced(race, lot.measure)
    assert found.chosen is None
    assert found.nearest is not None
    assert (found.state == FAILED).all()
    whole = {
        i: lot.measure([Task(c.point, chip, c.at) for chip in range(LOT.chips)]) for i, c in enumerate(race.candidates)
    }
    loss = {i: sum(row.correct_clean - row.correct for row in rows) for i, rows in whole.items()}
    assert loss[found.nearest] == min(loss.values())
    assert found.verdicts[found.nearest].loss == pytest.approx(100 * min(loss.values()) / (LOT.chips * IMAGES))


def test_a_budget_leaves_points_open_and_answers_with_what_it_has():
    lot = MadeUp(2)
    race = Race(lot.candidates(), Goal(1.0), LOT)
    full, spent = raced(race, lot.measure)
    short, less = raced(race, lot.measure, limit=spent.spent / 4)
    assert not short.settled
    assert less.spent < spent.spent
    assert short.chosen is not None
    assert full.chosen is not None
    assert race.energy[short.chosen] >= race.energy[full.chosen]
    assert race.goal.kept(short.held_out)


def test_what_differs_in_a_rail_without_faults_is_measured_once():
    """Of two points with one ease, as with one clock that no sum misses, a verdict on one is one on both."""
    lot = MadeUp(0, supplies=(0.8,), protections=("none",))
    (low,) = lot.candidates()
    twin = Candidate(low.point, low.at, low.ease, low.energy_pj / 2)
    found, ledger = raced(Race([low, twin], Goal(1.0), Lot(4, 0, IMAGES)), lot.measure)
    assert list(found.state) == [FAILED, FAILED]
    assert len(found.verdicts) == 1
    assert KEPT not in found.state
    assert all(task.chip < 4 for task in ledger.asked.values())
