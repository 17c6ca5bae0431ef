"""Is each chip's own lowest supply the one that all its images say, for a part of them, whoever measures?"""

import math
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.speed.made_up_chips import IMAGES, RAILS, MadeUp
from neuralfuse.results.rows import Rows
from neuralfuse.study.files import Study
from neuralfuse.study.grid import Point
from neuralfuse.sweep.collect import collect
from neuralfuse.sweep.each_chip import ERROR, Descent, Ladder, Own, ladders
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.task import Task
from simulator.operating_point import OperatingPoint, Supply
from tests.conftest import ROOT

VOLTAGES = tuple(np.linspace(0.96, 0.8, 17).round(3).tolist())


def ladder_of(lot: MadeUp) -> Ladder:
    """The weights' supply alone falls."""
    point = Point("net", "made up", "paper", "ibm14", "iid", "none", str(lot.seed))
    points = [OperatingPoint((Supply("weights", v), *(Supply(rail, 1.0) for rail in RAILS[1:]))) for v in VOLTAGES]
    return Ladder(point, "weights alone", VOLTAGES, tuple(points))


def descended(ladder: Ladder, measure, chips: range, points=1.0, rows=None) -> tuple[list[Own], dict]:
    """To the end, in this process, round by round."""
    rows = {} if rows is None else rows
    while True:
        descent = Descent(ladder, IMAGES, points, rows)
        found = [descent.own(chip) for chip in chips]
        todo = [task for task in dict.fromkeys(descent.wanted) if task.key not in rows]
        if not todo:
            return found, rows
        rows.update((row.key, row) for row in measure(todo))


def by_all_images(ladder: Ladder, measure, chip: int, points: float) -> list[bool]:
    """Whether a chip keeps at each supply."""
    rows = measure([Task(ladder.point, chip, at) for at in ladder.supplies])
    return [100 * (row.correct_clean - row.correct) <= points * row.total for row in rows]


@pytest.mark.parametrize(("points", "most"), [(1.0, 0.25), (5.0, 0.2)])
def test_it_is_where_all_images_say(points, most):
    """150 chips that are monotone by construction; each may be elsewhere once in a thousand (false alarm: 14%, were the
    bounds never conservative)."""
    lot = MadeUp(3)
    ladder, chips = ladder_of(lot), range(150)
    found, rows = descended(ladder, lot.measure, chips, points)
    for own in found:
        holds = by_all_images(ladder, lot.measure, own.chip, points)
        assert own.settled
        assert holds == sorted(holds, reverse=True)
        assert own.level == sum(holds)
    measured = sum(row.total for row in rows.values())
    assert measured == sum(own.images for own in found)
    assert measured < most * len(VOLTAGES) * IMAGES * len(chips)
    assert len({own.level for own in found}) > 3  # chips differ


def test_chips_that_hold_everywhere_or_nowhere():
    lot = MadeUp(3)
    low = ladder_of(lot)
    top = Ladder(low.point, low.rails, low.voltages[:2], low.supplies[:2])
    bottom = Ladder(low.point, low.rails, low.voltages[-2:], low.supplies[-2:])
    assert {own.level for own in descended(top, lot.measure, range(5))[0]} == {2}
    assert {own.level for own in descended(bottom, lot.measure, range(5))[0]} == {0}


def test_a_chip_that_rises_on_the_way_down_ends_where_it_holds_and_the_next_supply_does_not():
    """Bisection takes for granted that accuracy falls; where it does not there are several such places."""
    lot = MadeUp(3)
    ladder = ladder_of(lot)
    bad = {3, 9, 10}

    def measure(tasks):
        rows = []
        for task in tasks:
            (row,) = lot.measure([task])
            holds = VOLTAGES.index(task.at.supply("weights").voltage) not in bad and task.chip < 8
            right = row.correct_clean if holds else 0
            rows.append(replace(row, correct=right, correct_both=right))
        return rows

    found, _ = descended(ladder, measure, range(8))
    for own in found:
        holds = by_all_images(ladder, measure, own.chip, 1.0)
        assert holds[own.level - 1]
        assert own.level == len(holds) or not holds[own.level]


def test_the_error_of_a_look_is_its_part_of_what_a_chip_may_err():
    ladder = ladder_of(MadeUp(0))
    early, supplies = 4, math.ceil(math.log2(18))  # 32, 64, 128, 256 of 500 images
    assert Descent(ladder, IMAGES, 1.0, {}).error == pytest.approx(ERROR / (early * supplies))
    assert Descent(ladder, 20, 1.0, {}).error == pytest.approx(ERROR)  # no early look at all


def test_rows_of_all_images_settle_a_supply_at_once():
    lot = MadeUp(3)
    ladder = ladder_of(lot)
    whole = lot.measure([Task(ladder.point, 0, at) for at in ladder.supplies])
    (own,), rows = descended(ladder, lot.measure, range(1), rows={row.key: row for row in whole})
    assert len(rows) == len(whole)
    assert own.level == sum(by_all_images(ladder, lot.measure, 0, 1.0))
    (alone,), _ = descended(ladder, lot.measure, range(1))
    assert alone.level == own.level


def wanted(lot: MadeUp):
    """A plan of twelve chips."""
    ladder = ladder_of(lot)

    def plan(rows):
        descent = Descent(ladder, IMAGES, 1.0, rows)
        for chip in range(12):
            descent.own(chip)
        return descent.wanted

    return plan


def test_one_that_was_killed_and_one_of_a_pool_end_alike(tmp_path):
    lot = MadeUp(3)
    expected, rows = descended(ladder_of(lot), lot.measure, range(12))
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.neuralfuse.sweep.test_each_chip import *
        lot = MadeUp(3)
        done = lambda done, _: print(done, flush=True)
        collect(Rows(Path(sys.argv[1])), wanted(lot), lot.measure, choose(workers=1), done)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > len(rows) // 3:
                process.kill()
                break
    assert 0 < len(Rows(tmp_path / "killed").read()) < len(rows)
    for name, workers in (("killed", 1), ("pool", 2)):
        assert collect(Rows(tmp_path / name), wanted(lot), lot.measure, choose(workers=workers)) == []
        again = Rows(tmp_path / name).read()
        assert set(again) == set(rows)
        assert descended(ladder_of(lot), lot.measure, range(12), rows=dict(again))[0] == expected


def test_a_ladder_for_each_set_of_other_supplies_falling_with_the_weights():
    study = Study(
        "x",
        networks=["resnet8"],
        accelerators=["paper"],
        voltages=[0.8, 1.0, 0.9],
        rails={"activations": [1.0, 0.9]},
        together=["logic"],
    )
    point = Point("resnet8", "digits", "paper", "ibm14", "iid", "none", "0")
    found = ladders(study, [point])
    assert [ladder.rails for ladder in found] == [
        "activations 1, logic with weights",
        "activations 0.9, logic with weights",
    ]
    for ladder in found:
        assert ladder.voltages == (1.0, 0.9, 0.8)
        assert [at.supply("weights").voltage for at in ladder.supplies] == [1.0, 0.9, 0.8]
        assert [at.supply("logic").voltage for at in ladder.supplies] == [1.0, 0.9, 0.8]
        assert len({at.supply("activations").voltage for at in ladder.supplies}) == 1
