"""Are fronts, bands and margins right? Against hand-worked tables and the definition of attainment."""

import numpy as np
import pandas as pd
import pytest

from neuralfuse.results import pareto
from neuralfuse.results.trade import Trade, on_the_same_chips, saving_between


@pytest.fixture
def results():
    """Two protections, 20 chips, 6 voltages; `fuse` fails 0.03 lower and costs 2% of the energy."""
    rng = np.random.default_rng(0)
    rows = []
    for chip, spread in enumerate(rng.normal(0, 0.008, 20)):
        for voltage in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
            for name, centre, cost in (("none", 0.84, 0.0), ("fuse", 0.81, 0.02)):
                accuracy = 0.1 + 0.87 / (1 + np.exp((centre + spread - voltage) / 0.008))
                correct = round(1000 * accuracy)
                energy, saving = voltage**2 + cost, 1 - voltage**2 - cost
                rows.append(
                    dict(
                        network="n", dataset="d", accelerator="a", curve="ibm14", rails="weights alone",
                        structure="iid", protection=name,
                        voltage=voltage, chip=chip, correct=correct, total=1000, correct_clean=970,
                        correct_both=min(correct, 970), test_images=1000, clean_accuracy=0.97,
                        accuracy=correct / 1000, cell_fault_rate=0.0, flip_rate=0.0,
                        cell_fault_rate_activations=0.0, cycles=1,
                        clock_hz=1e9, inference_s=1e-9, inferences_per_s=1e9, energy_delay_chip_pj_s=1e-9,
                        **dict.fromkeys(pareto.SUPPLIES, 1.0),
                        **{f"energy_{s}_pj": energy for s in pareto.SCOPES},
                        **{f"saving_{s}": saving for s in pareto.SCOPES},
                    )
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_summary_is_over_chips_and_paired(results):
    table = pareto.summarise(results)
    assert len(table) == 12
    assert (table.chips == 20).all()
    row = table[(table.protection == "fuse") & (table.voltage == 0.85)].iloc[0]
    ours = results[(results.protection == "fuse") & (results.voltage == 0.85)].accuracy.to_numpy()
    bare = results[(results.protection == "none") & (results.voltage == 0.85)].accuracy.to_numpy()
    assert row.accuracy_mean == pytest.approx(ours.mean())
    assert row.accuracy_worst_chip == ours.min()
    assert row.gain_mean == pytest.approx((ours - bare).mean())
    assert row["yield"] == np.mean(ours >= 0.92)
    assert table[table.protection == "none"].gain_mean.isna().all()


def test_front_is_what_no_point_beats(results):
    table = pareto.summarise(results)
    best = pareto.front(table, "weight_sram")
    for _, p in table.iterrows():
        beaten = ((table.saving_weight_sram >= p.saving_weight_sram) & (table.accuracy_mean > p.accuracy_mean)) | (
            (table.saving_weight_sram > p.saving_weight_sram) & (table.accuracy_mean >= p.accuracy_mean)
        )
        assert (p.name in best.index) == (not beaten.any())


def test_attainment_is_the_share_of_chips_that_reach_a_point(results):
    """By definition: a corner of the 50% surface is reached by at least half of the chips, checked by counting, and
    nothing a little further in either direction is."""
    rows = results[results.protection == "fuse"]
    surfaces = pareto.attainment(rows, "sram")
    points, chips = rows[["saving_sram", "accuracy"]].to_numpy(), rows.chip.to_numpy()

    def reached(corner):
        return np.mean([(points[chips == c] >= corner).all(axis=1).any() for c in np.unique(chips)])

    assert set(surfaces) >= {5, 50, 95}
    for percentile, surface in surfaces.items():
        assert len(surface)
        for corner in surface:
            assert reached(corner - 1e-9) >= percentile / 100
            for further in ([1e-6, -1e-9], [-1e-9, 1e-6]):
                assert reached(corner + further) < percentile / 100


def test_headline_orders_protections_and_margins(results):
    table = pareto.headline(results, "weight_sram").set_index(["protection", "points"])
    assert table.loc[("fuse", 5.0), "voltage"] < table.loc[("none", 5.0), "voltage"]
    assert table.loc[("none", 5.0), "voltage"] <= table.loc[("none", 1.0), "voltage"]
    assert (table.voltage_low <= table.voltage).all()
    assert (table.saving <= table.saving_high + 1e-12).all()


def test_hypervolume_of_one_rectangle():
    rows = pd.DataFrame({"saving_sram": [0.3, 0.3], "accuracy": [0.5, 0.5], "chip": [0, 1]})
    assert pareto.hypervolume(rows, "sram").mean == pytest.approx(0.15)


def test_saving_at_equal_accuracy_and_back(results):
    fuse, bare = (results[results.protection == p] for p in ("fuse", "none"))
    ours, theirs = (Trade.of(rows, "sram") for rows in (fuse, bare))
    (gain,) = saving_between(0.8, (ours, theirs))
    assert gain.low <= gain.mean <= gain.high
    assert gain.mean > 0
    here = ours.accuracy_at(1 - 0.85**2 - 0.02)
    assert here.mean() == pytest.approx(fuse[fuse.voltage == 0.85].accuracy.mean())
    assert np.isnan(ours.accuracy_at(0.9)).all()


def test_trade_by_hand():
    """Two chips at 1, 0.9, 0.8 that save nothing, 0.2, 0.4: means 0.9, 0.8, 0.4."""
    chips = np.array([[0.9, 0.9, 0.5], [0.9, 0.7, 0.3]])
    savings = np.tile([0.0, 0.2, 0.4], (2, 1))
    trade = Trade(np.array([1.0, 0.9, 0.8]), np.array([3, 7]), chips, savings)
    assert trade.accuracy_at(0.0).tolist() == [0.9, 0.9]
    assert trade.accuracy_at(0.3) == pytest.approx([0.7, 0.5])
    assert np.isnan(trade.accuracy_at(0.41)).all()
    assert np.isnan(trade.accuracy_at(-0.01)).all()
    both, first = chips.mean(axis=0)[None], chips[:1]
    assert trade.saving_at(trade.lowest(0.6, both)) == pytest.approx([0.3])  # halfway from 0.8 to 0.4
    assert trade.saving_at(trade.lowest(0.6, first)) == pytest.approx([0.35])  # 3/4 of the way from 0.9 to 0.5
    assert trade.saving_at(trade.lowest(0.95, both)) == 0  # holds nowhere: the highest voltage
    assert trade.saving_at(trade.lowest(0.1, both)) == pytest.approx([0.4])  # holds everywhere
    assert trade.among(np.array([7])).accuracy_at(0.2).tolist() == [0.7]


def test_gains_at_equal_accuracy_and_equal_energy(results):
    """At equal accuracy it is the difference of the headline's savings; at equal energy `fuse`, which fails 0.03 lower,
    is more accurate where the bare network already falls."""
    table = pareto.at_equal(results)
    assert set(table.scope) == set(pareto.SCOPES)
    here = table[table.scope == "sram"]
    saving = here[here.gain_in == "saving"]
    assert np.allclose(saving["at"], [0.96, 0.95, 0.92])
    assert ((saving.gain_low <= saving.gain) & (saving.gain <= saving.gain_high)).all()
    lone = pareto.headline(results, "sram").set_index("protection").saving
    assert np.allclose(saving.gain, lone["fuse"].to_numpy() - lone["none"].to_numpy(), rtol=0, atol=1e-9)
    accuracy = here[here.gain_in == "accuracy"].set_index("at")
    assert list(accuracy.index) == [0.1, 0.2, 0.3, 0.4]  # 0.5 lies beyond the sweep
    assert accuracy.loc[0.3, "gain_low"] > 0
    assert (accuracy.chips == 20).all()
    assert pareto.at_equal(results[results.protection == "none"]).empty


@pytest.fixture
def canaries(results):
    """`fuse` with a supply of each chip's own: chip c saves 0.01 c more than chip 0 would."""
    own = results.assign(**{f"saving_{s}": results[f"saving_{s}"] + 0.01 * results.chip for s in pareto.SCOPES})
    return results.where(results.protection == "none", own)


def test_savings_that_differ_by_chip_are_means_over_chips(results, canaries):
    """20 chips: 0.095 more than chip 0. Chip 0's was shown, whatever the others saved."""
    more = 0.01 * np.mean(range(20))
    alike, own = (pareto.summarise(r).set_index(["protection", "voltage"]) for r in (results, canaries))
    for name in ("saving_weight_sram", "saving_system"):
        assert own.loc["fuse", name].to_numpy() == pytest.approx(alike.loc["fuse", name].to_numpy() + more)
    one = results[results.chip == 0].set_index(["protection", "voltage"]).saving_sram
    assert (alike.saving_sram == one[alike.index]).all()  # to the last bit where chips agree
    assert alike.cycles.dtype == int
    alike, own = (pareto.headline(r, "sram").set_index(["protection", "points"]) for r in (results, canaries))
    assert own.loc["fuse", "saving"].to_numpy() == pytest.approx(alike.loc["fuse", "saving"].to_numpy() + more)
    assert own.loc["none", "saving"].equals(alike.loc["none", "saving"])
    equal, fair = (pareto.at_equal(r).query("gain_in == 'saving'").gain.to_numpy() for r in (canaries, results))
    assert equal == pytest.approx(fair + more)


def test_savings_are_of_the_chips_that_are_compared(canaries):
    """Chips 4 and 6 of the protected network were measured at every voltage; 6 on the unprotected one too."""
    fuse, bare = (canaries[canaries.protection == p] for p in ("fuse", "none"))
    fuse = fuse[fuse.chip.isin([4, 6]) | (fuse.voltage > 0.9)]
    found = Trade.of(fuse, "sram")
    assert found.saving == pytest.approx(1 - found.voltages**2 - 0.02 + 0.05)
    ours, _ = on_the_same_chips(found, Trade.of(bare[bare.chip > 5], "sram"))
    assert ours.saving == pytest.approx(1 - ours.voltages**2 - 0.02 + 0.06)


def test_no_chip_in_common_is_no_gain_and_one_has_no_interval(results):
    """The defect: a gain of -0.08 [-0.08, -0.08] over 0 chips."""
    fuse, bare = (results[results.protection == p] for p in ("fuse", "none"))
    apart = pd.concat([fuse[fuse.chip < 10], bare[bare.chip >= 10]])
    assert pareto.at_equal(apart).empty
    halves = (Trade.of(rows, "sram") for rows in (fuse[fuse.chip < 10], bare[bare.chip >= 10]))
    (gain,) = saving_between(0.9, on_the_same_chips(*halves))
    assert gain.chips == 0
    assert np.isnan([gain.mean, gain.low, gain.high]).all()
    table = pareto.at_equal(results[results.chip == 3])
    assert set(table.gain_in) == {"saving", "accuracy"}
    assert (table.chips == 1).all()
    assert table.gain.notna().all()
    assert table[["gain_low", "gain_high"]].isna().all(axis=None)
    with_all = pareto.at_equal(results).set_index(["scope", "gain_in", "at"])
    assert set(table.set_index(["scope", "gain_in", "at"]).index) == set(with_all.index)


def test_chips_measured_at_some_voltages_only_hold_nothing(results):
    """Each chip has been at one of the voltages: no chip is left whose accuracy can be followed down."""
    scattered = results[results.chip % 6 == results.voltage.rank(method="dense").astype(int) - 1]
    table = pareto.headline(scattered)
    assert (table.chips == 0).all()
    assert table[["voltage", "voltage_low", "saving", "saving_high"]].isna().all(axis=None)
    assert not table.censored.any()


def test_points_per_million_parameters():
    """Table 3 of the paper: ConvL (723,273 parameters) wins back 48.8 points on ResNet18 at 1%: 67.5."""
    summary = pd.DataFrame({"protection": ["none", "ConvL"], "gain_mean": [np.nan, 0.488]})
    found = pareto.per_million_parameters(summary, {"ConvL": 723273})
    assert round(found.gain_points_per_million_parameters[1], 1) == 67.5
    assert np.isnan(found.gain_points_per_million_parameters[0])


def test_of_chips_that_were_sampled_only_means_are_said(results):
    """Ten times as many test images; the unprotected network's chips were measured on all of them."""
    fuse = results.protection == "fuse"
    sampled = results.assign(test_images=np.where(fuse, 10_000, 1000))
    table, whole = (pareto.summarise(rows).set_index(["protection", "voltage"]) for rows in (sampled, results))
    single = ["accuracy_worst_chip", "accuracy_q10", "yield", "yield_low", "yield_high"]
    assert table.loc["fuse", single].isna().all(axis=None)
    assert table.loc["none", single].equals(whole.loc["none", single])
    assert table.accuracy_mean.equals(whole.accuracy_mean)
    assert (table.accuracy_low <= whole.accuracy_low).all()
    at_top = table.loc[("fuse", 1.0)]  # every chip alike: as wide as 20,000 images that lost so few allow
    assert at_top.accuracy_high - at_top.accuracy_low > whole.loc[("fuse", 1.0)].pipe(
        lambda row: row.accuracy_high - row.accuracy_low
    )
    assert set(pareto.yields(sampled).protection) == {"none"}
    assert pareto.yields(sampled[fuse]).empty
