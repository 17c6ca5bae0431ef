"""Do the schedules that are found keep up with another mapper's, and how far are they from a chip's?"""

import pandas as pd
import pytest

from benchmarks.mapper import networks
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


@pytest.fixture(scope="module")
def chip():
    return eyeriss().set_index("layer")


def test_the_chips_own_schedules_take_its_time_and_its_bytes(chip):
    """AlexNet's are published; VGG16's follow from the published buffer accesses, so that these only test the rest."""
    assert (chip.chip_ms / chip.published_ms).between(0.95, 1.25).all()
    assert (chip.chip_buffer_mb / chip.published_buffer_mb).between(0.99, 1.09).all()
    assert (chip.chip_coded_dram_mb / chip.published_dram_mb).between(0.88, 1.18).all()
    total = chip.groupby("network").sum(numeric_only=True)
    assert total.chip_ms["alexnet"] == pytest.approx(115.3, rel=0.06)
    assert total.chip_ms["vgg16"] == pytest.approx(4309.4, rel=0.03)
    assert (total.chip_coded_dram_mb / total.published_dram_mb).between(0.95, 1.05).all()


def test_schedules_that_are_found_keep_up_with_the_chips(chip):
    assert (chip.ms <= 1.2 * chip.published_ms).all()
    assert (chip.dram_mb >= 0.9999 * chip.compulsory_mb).all()
    # the paper's own factors from coded bytes to those as they are, layer by layer of AlexNet
    uncoded = chip.published_dram_mb[chip.network == "alexnet"] * [1.2, 1.4, 1.7, 1.8, 1.9]
    assert (chip.dram_mb[chip.network == "alexnet"] <= 1.1 * uncoded).all()
    vgg16 = chip[chip.network == "vgg16"]
    assert (vgg16.coded_dram_mb <= 1.4 * vgg16.published_dram_mb).all()


def test_published_totals_are_those_of_the_abstract(chip):
    """35 and 0.7 frames a second, 0.0029 and 0.0035 DRAM accesses of 16 bits a product."""
    total = chip.groupby("network").sum(numeric_only=True)
    for network, batch, frames, accesses in (("alexnet", 4, 35, 0.0029), ("vgg16", 3, 0.7, 0.0035)):
        assert 1e3 * batch / total.published_ms[network] == pytest.approx(frames, rel=0.02)
        macs = getattr(networks, network)().with_batch(batch).macs
        assert round(total.published_dram_mb[network] * 1e6 / 2 / macs, 4) == accesses


def test_the_committed_tables_are_those_of_today(resnet18, chip):
    committed = pd.read_csv(RESULTS / "resnet18.csv").set_index(["machine", "layers", "by"])
    pd.testing.assert_frame_equal(committed, resnet18.round(3), check_exact=False, rtol=1e-9)
    pd.testing.assert_frame_equal(
        pd.read_csv(RESULTS / "eyeriss.csv").set_index("layer"), chip.round(3), check_exact=False, rtol=1e-9
    )
