"""Is every picojoule accounted for: by hand, by scope, by voltage, by source?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper import energy as paper_energy
from neuralfuse import networks
from simulator.accelerator import accelerator, with_rails, with_weight_rail
from simulator.area import area
from simulator.array.cycles import simulate
from simulator.compat import paper
from simulator.energy import COMPONENTS, SCOPES, SRAM, energy, idle_mw
from simulator.figures import OF_BITS, UNITS, EnergyTable, Figures, energy_table, published
from simulator.operating_point import NOMINAL, OperatingPoint, Supply, weights_at
from simulator.readers.read import trace
from simulator.workload import Layer, Workload, conv, linear, matmul
from sram.energy import leakage_scale, macro
from sram.errors import InputError

ACCESSES = paper_energy.read("paper_weight_memory_accesses.csv")

PAPER = accelerator("paper")
STEM = Workload("stem", (conv("stem", 32, 32, 3, 64, kernel=3, padding=1),))
MIXED = Workload(
    "mixed",
    (
        *STEM.layers,
        Layer("relu", "activation", operations=65536, elements_read=65536, elements_written=65536, sources=(0,)),
        matmul("scores", 16, 8, 16, groups=2, sources=(1,)),
        linear("head", 1, 512, 10, sources=(2,)),
    ),
)


def test_a_convolution_by_hand():
    """Horowitz: 0.2 and 0.1 pJ at 45 nm, 0.9 V; Aladdin: 0.009 pJ at 40 nm, 0.9 V; CACTI, 22 nm lstp, 256 KB, 0.8 V."""
    found = energy(simulate(STEM, PAPER)).components
    macs, word_read_pj = 32 * 32 * 27 * 64, 11.8577
    assert found["weight_sram_reads"][0] == pytest.approx(27 * 64 * 32 / 8 * word_read_pj)
    assert found["weight_sram_writes"][0] == pytest.approx(27 * 64 / 8 * 8.82464)
    assert found["mac"][0] == pytest.approx(macs * (0.2 + 0.1) * 22 / 45 * (0.8 / 0.9) ** 2)
    # each MAC moves 8 + 8 bits and writes 32; 65536 results of 32 bits leave through 16.5 rows on average
    bits = macs * 48 + 65536 * 32 * 16.5
    assert found["registers"][0] == pytest.approx(bits * 0.009 * 22 / 40 * (0.8 / 0.9) ** 2)
    assert found["dram"][0] >= (3 * 32 * 32 + 27 * 64) * 1300 / 8


def test_leakage_is_power_times_time():
    counts = simulate(STEM, PAPER)
    found = energy(counts).components
    seconds = counts.cycles / 500e6
    assert found["sram_leakage"].sum() == pytest.approx(3 * 0.120575 * 1e-3 * seconds * 1e12)
    element_mw = 0.0779 / 16 + 0.00225
    mw = (1024 * element_mw + 32 * 0.00225) * 22 / 40 * float(leakage_scale(0.8, 0.9))
    assert found["logic_leakage"].sum() == pytest.approx(mw * 1e-3 * seconds * 1e12)


def test_scopes_are_nested_sums_and_the_frame_adds_up():
    found = energy(simulate(MIXED, PAPER))
    assert found.sram_pj == pytest.approx(sum(found.components[name].sum() for name in SRAM))
    assert found.system_pj == pytest.approx(sum(found.components[name].sum() for name in COMPONENTS))
    frame = found.frame()
    assert frame["layer"].tolist() == ["stem", "relu", "scores", "head", "total"]
    assert frame["scope_system_pj"].iloc[-1] == pytest.approx(found.system_pj)
    assert frame["scope_weight_sram_pj"].iloc[-1] == pytest.approx(found.weight_sram_pj)
    assert found.chip_pj == pytest.approx(found.system_pj - found.components["dram"].sum())
    assert [frame[f"scope_{scope}_pj"].iloc[-1] for scope in SCOPES] == pytest.approx(list(map(found.scope_pj, SCOPES)))
    units = ("_pj", "seconds", "_pj_s", "_per_s")
    assert all(name == "layer" or name.endswith(units) for name in frame.columns)


def test_activations_in_the_weight_buffer_are_not_weights():
    found = energy(simulate(MIXED, PAPER)).components
    assert found["weight_sram_reads"][2] == 0
    assert found["activation_sram"][2] > 0


@given(st.floats(0.3, 1.2), st.floats(0.3, 1.2))
def test_dynamic_energy_goes_with_the_square_and_nothing_else_moves(a, b):
    counts = simulate(MIXED, PAPER)
    low, high = (energy(counts, weights_at(PAPER, v, nominal=1.0)) for v in sorted((a, b)))
    ratio = (min(a, b) / max(a, b)) ** 2
    assert low.weight_sram_pj == pytest.approx(ratio * high.weight_sram_pj)
    assert low.sram_pj <= high.sram_pj
    for name in ("mac", "registers", "vector", "logic_leakage", "dram"):
        assert np.array_equal(low.components[name], high.components[name])


def test_volts_and_multiples_of_nominal_agree():
    counts = simulate(MIXED, PAPER)
    assert energy(counts, weights_at(PAPER, 0.6)).sram_pj == pytest.approx(
        energy(counts, weights_at(PAPER, 0.75, nominal=1.0)).sram_pj
    )
    assert energy(counts).sram_pj == pytest.approx(energy(counts, weights_at(PAPER, 1.0, nominal=1.0)).sram_pj)
    with pytest.raises(InputError, match="more than 0"):
        weights_at(PAPER, 0.0)


def test_only_the_weight_buffers_rail_is_lowered():
    machine = with_weight_rail(PAPER)
    assert with_weight_rail(machine) is machine
    counts = simulate(STEM, machine)
    nominal, low = energy(counts), energy(counts, weights_at(machine, 0.5, nominal=1.0))
    assert low.weight_sram_pj == pytest.approx(nominal.weight_sram_pj / 4)
    assert np.array_equal(low.components["activation_sram"], nominal.components["activation_sram"])


def test_every_rail_has_its_supply_and_the_clock_its_leakage():
    machine = with_weight_rail(PAPER)
    counts = simulate(MIXED, machine)
    nominal, logic = energy(counts), energy(counts, OperatingPoint((Supply("logic", 0.5),)))
    assert logic.components["mac"].sum() == pytest.approx(nominal.components["mac"].sum() / 4)
    assert logic.sram_pj == nominal.sram_pj
    slow = energy(counts, OperatingPoint(clock_hz=machine.clock_hz / 2))
    for name, spent in nominal.components.items():
        assert slow.components[name].sum() == pytest.approx(spent.sum() * (2 if "leakage" in name else 1))
    with pytest.raises(InputError, match="rail = 'io'"):
        energy(counts, OperatingPoint((Supply("io", 0.5),)))
    with pytest.raises(InputError, match="clock_hz"):
        OperatingPoint(clock_hz=0.0)


def test_time_and_energy_delay_follow_the_clock_of_the_point():
    machine = replace(PAPER, batch=2)
    counts = simulate(MIXED, machine)
    slow = energy(counts, OperatingPoint((Supply("logic", 0.9),), clock_hz="follow"))
    assert slow.seconds == pytest.approx(counts.cycles / 346.0e6 / 2, rel=1e-3)
    last = slow.frame().iloc[-1]
    assert last["seconds"] == pytest.approx(slow.seconds)
    assert last["inferences_per_s"] == pytest.approx(1 / slow.seconds)
    assert last["energy_delay_chip_pj_s"] == pytest.approx(slow.chip_pj * slow.seconds)
    nominal = energy(counts)
    ratio = float(leakage_scale(0.72, 0.8)) * slow.seconds / nominal.seconds
    assert slow.components["logic_leakage"].sum() == pytest.approx(ratio * nominal.components["logic_leakage"].sum())


def test_idle_power_is_all_leakage_and_less_where_buffers_are_held_low():
    counts, held = simulate(STEM, PAPER), replace(PAPER, retention_v=0.5)
    found = energy(counts)
    leaked = (found.components["sram_leakage"] + found.components["logic_leakage"]).sum()
    assert idle_mw(PAPER) == pytest.approx(leaked / found.seconds / 1e9)
    low = OperatingPoint((Supply("logic", 0.9),))
    assert idle_mw(PAPER, low) < idle_mw(PAPER)
    assert idle_mw(held) == idle_mw(held, low) == pytest.approx(3 * 0.120575 * float(leakage_scale(0.5, 0.8)))
    with pytest.raises(InputError, match=r"retention_v = 0.9 is not allowed; allowed: more than 0 V, and at most the"):
        replace(PAPER, retention_v=0.9)


@pytest.mark.parametrize(
    ("names", "on"),
    [
        (["weights"], ("sram", "weights", "sram")),
        (["activations"], ("activations", "sram", "activations")),
        (["accumulators", "activations"], ("activations", "sram", "accumulators")),
        (["weights", "activations", "accumulators", "logic"], ("activations", "weights", "accumulators")),
        (["sram", "accumulators"], ("sram", "sram", "accumulators")),
        (["sram"], ("sram", "sram", "sram")),
    ],
)
def test_buffers_have_rails_by_what_they_hold(names, on):
    machine, rails = with_rails(PAPER, names)
    assert (machine.ifmap_buffer.rail, machine.weight_buffer.rail, machine.ofmap_buffer.rail) == on
    assert rails == {name: name for name in names}
    assert {machine.rails[rail] for rail in on} == {0.8}


def test_a_buffer_that_has_its_rail_alone_keeps_it():
    own = replace(
        PAPER,
        weight_buffer=replace(PAPER.weight_buffer, rail="w"),
        ofmap_buffer=replace(PAPER.ofmap_buffer, rail="o"),
        rails={"w": 0.7, "o": 0.6, "sram": 0.8, "logic": 0.8},
    )
    assert with_rails(own, ["weights", "accumulators"]) == (own, {"weights": "w", "accumulators": "o"})
    for names, message in (
        (["weights", "w"], "by one name"),
        (
            ["io"],
            "rail = 'io' is not allowed; allowed: of paper: w, o, sram, logic, weights, activations, accumulators",
        ),
        (["activations"], "allowed: one of its rails of paper: o, sram"),
    ):
        with pytest.raises(InputError, match=message):
            with_rails(own, names)
    with pytest.raises(InputError, match="a rail that something is left on"):
        with_rails(PAPER, ["sram", "weights", "activations"])


def test_a_name_that_another_rail_has_is_refused():
    machine = replace(PAPER, rails=PAPER.rails | {"weights": 0.7})
    with pytest.raises(InputError, match="rails = 'weights'"):
        with_weight_rail(machine)


@pytest.mark.parametrize("missing", sorted(energy_table().entries))
def test_a_missing_entry_is_an_error(missing):
    entries = {name: entry for name, entry in energy_table().entries.items() if name != missing}
    machine = accelerator("eyeriss") if missing in ("scratchpad", "hop") else PAPER
    table, counts = EnergyTable("mine", entries), simulate(MIXED, machine)

    with pytest.raises(InputError, match=f"entry = '{missing}'"):
        area(PAPER, table) if missing.endswith("_area") else energy(counts, table=table)


def test_a_buffer_outside_the_sram_table_is_an_error():
    tiny = replace(PAPER, weight_buffer=replace(PAPER.weight_buffer, capacity_bytes=2048))
    with pytest.raises(InputError, match="capacity_bytes"):
        energy(simulate(STEM, tiny))


def test_every_figure_has_unit_node_voltage_and_source():
    figures = energy(simulate(MIXED, PAPER), weights_at(PAPER, 0.7, nominal=1.0)).sources()
    assert set(figures["unit"]) == {"pJ", "mW"}
    assert (figures["value"] > 0).all()
    assert figures["source"].str.len().min() > 10
    weight = figures.set_index("component").loc["weight_buffer_read"]
    assert (weight["node_nm"], weight["voltage_v"]) == (22, pytest.approx(0.56))
    assert figures.set_index("component").loc["dram", "voltage_v"] == 1.5


USER = """
extends: published
entries:
  dram: {value: 4.0, unit: pJ, per: bit, bits: 1, node_nm: 10, voltage_v: 0.6, scales: false, source: a data sheet}
  weight_buffer_read: {value: 5.0, unit: pJ, per: word, node_nm: 22, voltage_v: 0.8, source: a memory compiler}
"""


def test_a_users_table_overrides_the_published_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(USER)
    counts = simulate(STEM, PAPER)
    ours, theirs = energy(counts), energy(counts, table=energy_table(path))
    assert theirs.components["dram"].sum() == pytest.approx(ours.components["dram"].sum() * 4 * 64 / 1300)
    assert theirs.weight_sram_pj == pytest.approx(6912 * 5.0)
    assert np.array_equal(ours.components["mac"], theirs.components["mac"])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("unit: pJ, per: bit", "unit: J, per: bit", "unit = 'J'"),
        (", source: a data sheet", "", "source = None"),
        ("value: 4.0", "value: much", "value = 'much'"),
        ("entries:", "entry:", "entry = "),
        ("extends: published", "extends: nothing", "extends = 'nothing'"),
        ("bits: 1", "bitz: 1", "bitz = 1"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path, old, new, says):
    path = tmp_path / "mine.yaml"
    path.write_text(USER.replace(old, new, 1))
    with pytest.raises(InputError, match=says):
        energy_table(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  weight_buffer_read",
            "  weight_buffer_reads",
            "entries = 'weight_buffer_reads' is not allowed; allowed: add,",
        ),
        ("unit: pJ, per: bit", "unit: mW, per: bit", "entries.dram.unit = 'mW' is not allowed; allowed: pJ"),
        ("value: 4.0", "value: -4.0", "entries.dram.value = -4.0 is not allowed; allowed: 0 to 1e+12"),
        ("value: 4.0", "value: .nan", "entries.dram.value (line"),
        ("value: 4.0", "value: .inf", "entries.dram.value (line"),
        ("voltage_v: 0.8", "voltage_v: 0", "entries.weight_buffer_read.voltage_v = 0.0 is not allowed; allowed: 0.01"),
        ("node_nm: 22", "node_nm: 0", "entries.weight_buffer_read.node_nm = 0.0"),
        ("node_nm: 22", "node_nm: .inf", "entries.weight_buffer_read.node_nm (line"),
        ("bits: 1, ", "", "entries.dram.bits = 0 is not allowed; allowed: the operand's width"),
        ("bits: 1", "bits: -1", "entries.dram.bits = -1"),
        ("bits: 1", "bits: 99999999999999999999", "entries.dram.bits (line 4) = '9999"),
        ("bits: 1", "bitz: 1", "entries.dram.bitz = 1 is not allowed; allowed: value, unit, per"),
        (
            "extends: published",
            "extends: 5",
            "extends = 5 is not allowed; allowed: clocked, published, or another YAML file",
        ),
        ("extends: published", "extends: [published]", "extends = ['published']"),
        ("extends: published", "extends: no.yaml", "extends = 'no.yaml'"),
        ("extends: published", "extends: SELF", "that does not extend this one"),
        ("a data sheet", "\xb5", "content = 'bytes that are not UTF-8'"),
        pytest.param("value: 4.0", "value: " + "9" * 5000, "allowed: a finite number", id="5000 digits"),
        pytest.param("value: 4.0", "value: " + "[" * 5000, "allowed: valid YAML", id="5000 brackets"),
    ],
)
def test_a_mistake_in_a_table_names_file_key_value_and_what_is_allowed(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    assert old in USER
    path.write_bytes(USER.replace(old, new.replace("SELF", str(path)), 1).encode("latin-1"))
    with pytest.raises(InputError) as error:
        energy_table(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_tables_that_extend_each_other_are_refused(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(USER.replace("published", str(second)))
    second.write_text(USER.replace("published", str(first)))
    with pytest.raises(InputError, match="extends"):
        energy_table(first)
    second.write_text(USER.replace("value: 4.0", "value: 8.0").replace("value: 5.0", "value: 6.0"))
    assert set(energy_table(first).entries) == set(energy_table().entries) | {"weight_buffer_read"}
    assert energy_table(first)["dram"].value == 4.0


@pytest.mark.parametrize("component", OF_BITS)
def test_what_is_scaled_to_a_width_says_for_which_it_holds(component):
    entries = energy_table().entries
    with pytest.raises(InputError, match=f"entries.{component}.bits = 0"):
        EnergyTable("mine", entries | {component: replace(entries[component], bits=0)})


@pytest.mark.parametrize("machine", ["paper", "edge", "eyeriss"])
def test_a_clock_tree_may_be_a_share_of_a_busy_cycle(machine):
    """Of all that the array takes while every element multiplies: 0.3, at any supply, in every cycle."""
    machine = accelerator(machine)
    counts, volts = simulate(STEM, machine), NOMINAL.volts(machine)
    price = Figures(machine, published(), volts).prices()[0]
    busy = machine.array_rows * machine.array_cols * price[f"mac_{machine.dataflow}"]
    found = energy(counts, table=energy_table("clocked")).components["clock_tree"].sum()
    assert found == pytest.approx(counts.cycles * busy * 0.3 / 0.7)
    low = energy(counts, OperatingPoint((Supply("logic", 0.75),)), table=energy_table("clocked"))
    assert low.components["clock_tree"].sum() == pytest.approx(0.75**2 * found)


def test_a_share_is_of_the_clock_tree_alone_and_below_one():
    share = replace(energy_table("clocked")["clock_tree"])
    with pytest.raises(InputError, match="below 1"):
        replace(share, value=1.0)
    with pytest.raises(InputError, match=r"entries\.add\.unit = .share."):
        EnergyTable("mine", {"add": replace(share, bits=32)})


def test_a_clock_tree_is_counted_by_the_cycle_where_a_table_has_one(tmp_path):
    """12 pJ a cycle at 28 nm, 1 V: on the logic rail, in the scope chip, and in what a search weighs."""
    mine = "{value: 12, unit: pJ, per: cycle, source: a chip, node_nm: 28, voltage_v: 1.0}"
    (tmp_path / "mine.yaml").write_text(f"extends: published\nentries:\n  clock_tree: {mine}\n")
    table, counts = energy_table(tmp_path / "mine.yaml"), simulate(STEM, PAPER)
    low = OperatingPoint((Supply("logic", 0.75),))  # of 0.8 V
    for at, volts in ((NOMINAL, 0.8), (low, 0.6)):
        without, found = energy(counts, at), energy(counts, at, table=table)
        assert without.components["clock_tree"].sum() == 0
        expected = counts.cycles * 12 * 22 / 28 * volts**2
        assert found.components["clock_tree"].sum() == pytest.approx(expected)
        assert found.chip_pj - without.chip_pj == pytest.approx(expected)
        assert found.sram_pj == without.sram_pj
    prices = [Figures(PAPER, each, NOMINAL.volts(PAPER)).prices()[0]["cycle"] for each in (published(), table)]
    assert prices[1] - prices[0] == pytest.approx(12 * 22 / 28 * 0.8**2)


def test_every_entry_of_a_table_has_one_unit(tmp_path):
    entries = energy_table().entries
    for component in UNITS:
        wrong = "pJ" if UNITS[component] == "mW" else "mW"
        with pytest.raises(InputError, match=f"entries.{component}.unit = '{wrong}'"):
            EnergyTable("mine", entries | {component: replace(entries["add"], unit=wrong)})
        right = replace(entries["add"], unit=UNITS[component])
        energy(simulate(STEM, PAPER), table=EnergyTable("mine", entries | {component: right}))  # each of them is used


def test_sram_energies_are_of_the_very_node():
    counts = simulate(STEM, replace(PAPER, node_nm=22.9))
    with pytest.raises(InputError, match=r"paper: node_nm = 22\.9 is not allowed; allowed: a whole number"):
        energy(counts)
    with pytest.raises(InputError, match="23 nm"):
        energy(counts, accelerator=replace(PAPER, node_nm=23.0))
    ours = {name: replace(energy_table()["add"], unit=unit) for name, unit in UNITS.items() if "buffer" in name}
    assert energy(counts, table=EnergyTable("mine", energy_table().entries | ours)).system_pj > 0  # no table is asked


def test_a_supply_is_a_number():
    for voltage in (float("inf"), float("nan")):
        with pytest.raises(InputError, match="finite"):
            weights_at(PAPER, voltage)


def test_a_batch_shares_weights_and_energy_is_that_of_one_inference():
    one, eight = (energy(simulate(MIXED, replace(PAPER, batch=batch))) for batch in (1, 8))
    assert eight.components["mac"].sum() == pytest.approx(one.components["mac"].sum())
    assert eight.components["weight_sram_writes"].sum() == pytest.approx(one.components["weight_sram_writes"].sum() / 8)
    traced = energy(simulate(MIXED.with_batch(8), PAPER))
    assert traced.system_pj == pytest.approx(eight.system_pj)


@pytest.mark.parametrize(("capacity_kb", "published_pj"), [(8, 10), (32, 20), (1024, 100)])
def test_sram_agrees_with_another_authority(capacity_kb, published_pj):
    """Horowitz, ISSCC 2014: a 64-bit access of a cache at 45 nm, tags and all; CACTI here models the data array alone.
    The scale must agree: it gives 6.1, 17 and 94 pJ, all of them less, as no tag is read; a factor of two at most."""
    assert 0.5 < macro(capacity_kb * 1024, 45).read_pj / published_pj < 2


def test_the_papers_tables():
    tables = paper_energy.compare()
    agreeing = {title: sum(row.agrees for row in rows) for title, rows in tables.items()}
    assert list(agreeing.values()) == [11, 29, 11, 30]
    assert [row.what for rows in tables.values() for row in rows if not row.agrees] == ["VGG19 with ConvS"]
    assert paper_energy.main() == 0


def test_the_saving_is_the_papers_own():
    """One number serves the whole table: where all 29 agree is an interval, and it lies in the printed 30.6%."""
    accesses = {row["model"]: int(row["weight_memory_accesses"]) for row in ACCESSES}
    low, high = -np.inf, np.inf
    for row in paper_energy.read("paper_energy_saving.csv"):
        if row["erratum"] != "yes":
            middle = float(row["saving_pct"]) + 100 * accesses[row["generator"]] / accesses[row["base"]]
            low, high = max(low, middle - 0.05), min(high, middle + 0.05)
    assert low < paper_energy.SAVING_PCT < high
    assert f"{low:.1f}" == f"{high:.1f}" == str(paper_energy.PRINTED_SAVING_PCT)


@pytest.mark.parametrize("name", ["VGG11", "VGG16", "VGG19"])
def test_the_engine_itself_reads_the_published_number_of_words(name):
    """Strides divide in VGG, so that the paper's counting has no slips there and our own must equal it."""
    published = {row["model"]: row["weight_memory_accesses"] for row in ACCESSES}
    workload = trace(networks.build(name.lower()), (3, 32, 32))
    assert (
        simulate(workload, PAPER).weight_word_reads().sum() == int(published[name]) == paper.weight_accesses(workload)
    )


def test_area_by_hand():
    """256 elements at 22 nm: at 45 nm multipliers of 282 um2, 32-bit adders of 137 um2, flip-flops of 4.522 um2."""
    machine = replace(accelerator("edge"), vector_lanes=1)
    found, shrink = area(machine), (22 / 45) ** 2 / 1e6
    assert found.components["multipliers"] == pytest.approx(256 * 282 * shrink)
    assert found.components["adders"] == pytest.approx(257 * 137 * shrink)
    assert found.components["registers"] == pytest.approx(256 * (8 + 8 + 32 + 8) * 4.522 * shrink)
    assert found.components["ifmap_buffer"] == pytest.approx(macro(65536, 22).area_mm2)
    assert found.mm2 == pytest.approx(sum(found.components.values()))
    assert {figure["unit"] for figure in found.figures} == {"um2", "mm2"}
    parts = replace(machine, ifmap_buffer=replace(machine.ifmap_buffer, macros=4))
    assert area(parts).components["ifmap_buffer"] == pytest.approx(4 * macro(16384, 22).area_mm2)
    bare = EnergyTable("bare", {k: v for k, v in energy_table().entries.items() if k != "register_area"})
    with pytest.raises(InputError, match="register_area"):
        area(machine, bare)
