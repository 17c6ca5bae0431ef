"""Do the schedules that are found keep up with another mapper's, and how far are they from a chip's?"""

import pandas as pd
import pytest

from benchmarks.mapper.__main__ import RESULTS, eyeriss, zigzag

OPERANDS = ["input_bytes", "weight_bytes", "psum_bytes", "output_bytes"]


@pytest.fixture(scope="module")
def resnet18():
    return zigzag().set_index(["machine", "layers", "by"])


@pytest.mark.parametrize("machine", ["edge", "tpu_like"])
def test_cycles_and_bytes_are_those_of_zigzag_or_fewer(resnet18, machine):
    """The first layer apart: ZigZag's mapping puts 3 input channels on rows that hold 3 x 7 x 7 taps here."""
    theirs, ours = (resnet18.loc[machine, "all but conv1", by] for by in ("ZigZag 3.9.1", "this simulator"))
    assert ours.cycles == pytest.approx(theirs.cycles, rel=0.15)
    for operand in OPERANDS:
        assert ours[operand] <= 1.15 * theirs[operand] + 0.001
    assert ours[OPERANDS].sum() <= theirs[OPERANDS].sum()


def test_the_first_layer_is_what_differs(resnet18):
    for machine, side in (("edge", 16), ("tpu_like", 32)):
        all_layers, rest = (resnet18.loc[machine, which, "ZigZag 3.9.1"].cycles for which in ("all", "all but conv1"))
        macs = 112 * 112 * 64 * 147
        assert all_layers - rest == pytest.approx(macs / (3 * side) / 1e6, rel=0.15)


def test_the_chip_is_met_in_time_on_alexnet_and_missed_in_bytes():
    """Row stationary keeps 74 KB of filters in its elements, and feature maps are compressed; neither is modelled."""
    total = eyeriss().groupby("network").sum(numeric_only=True)
    assert total.ms["alexnet"] == pytest.approx(total.published_ms["alexnet"], rel=0.5)
    assert total.published_dram_mb["alexnet"] == pytest.approx(15.4)
    assert total.published_ms["vgg16"] == pytest.approx(4309.5, abs=0.2)
    assert (total.dram_mb < 3 * total.published_dram_mb).all()
    assert (total.dram_mb >= total.compulsory_mb).all()


def test_the_committed_tables_are_those_of_today(resnet18):
    committed = pd.read_csv(RESULTS / "resnet18.csv").set_index(["machine", "layers", "by"])
    pd.testing.assert_frame_equal(committed, resnet18.round(3), check_exact=False, rtol=1e-9)
    pd.testing.assert_frame_equal(
        pd.read_csv(RESULTS / "eyeriss.csv"), eyeriss().round(3), check_exact=False, rtol=1e-9
    )
