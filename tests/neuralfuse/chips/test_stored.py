"""Does every stored word lie in the cell that its fetching gives it, whatever kind of layer reads it?"""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from neuralfuse.chips.memory import for_words, weight_geometry
from neuralfuse.chips.stored import in_accelerator, not_in_weak_cells, with_exponents
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.quantized.quantize import weight_parameters
from neuralfuse.study.check import check
from neuralfuse.study.files import parse_study
from simulator import trace
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.readers.read import Integers
from simulator.workload import Workload, linear
from sram.errors import InputError
from sram.failure import curve
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.plugins import allow_folder
from sram.structure import structure
from tests.conftest import run

SOURCE = """
import torch
from torch import nn

class Rows(nn.Module):
    '''The rows of an image, one a step.'''

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(16))
        self.lstm = nn.LSTM(16, 12, batch_first=True)
        self.head = nn.Linear(12, num_classes)
        self.idle = nn.Linear(2, 2, bias=False)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1, 2) * self.scale)[0][:, -1])
"""
PAPER = replace(accelerator("paper"), array_rows=4, array_cols=8)


class Text(nn.Module):
    """Tokens through an embedding, a recurrent layer, and out by the embedding's own table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(19, 6)
        self.bag = nn.EmbeddingBag(19, 5)
        self.rnn = nn.LSTM(6, 7, proj_size=6, batch_first=True, bidirectional=True)
        self.own = nn.Parameter(torch.randn(12, 6))
        self.out = nn.Linear(6, 19, bias=False)
        self.out.weight = self.table.weight
        self.last = nn.Linear(24, 3)
        self.place = nn.Parameter(torch.randn(6))
        self.stored_weights = ("own",)

    def forward(self, tokens):
        h = self.rnn(self.table(tokens) + self.place)[0][:, -1] @ self.own
        return self.last(torch.cat([self.out(h), self.bag(tokens)], -1))


def all_weak(geometry):
    """Every cell reads the opposite."""
    cells = np.arange(geometry.cells)
    voltages, kind = np.ones(len(cells), np.float32), np.full(len(cells), 2, np.uint8)
    return FaultMap(geometry, curve("ibm14"), structure("iid"), 0, 0, 0.5, cells, voltages, kind)


def slow_cells(workload, machine, geometry, bits=8):
    """{(tensor, element, bit): cell} where weights stay, as many as fit to a word, in the order of an output-stationary
    array."""
    found, word, columns, slots = {}, 0, machine.array_cols, 64 // bits
    for layer in workload.layers:
        if not layer.weights or layer.weight_name in {name for name, _, _ in found}:
            continue
        order = list(range(layer.weights))
        if layer.on_array:
            places = [
                (n, k)
                for first in range(0, layer.n, columns)
                for k in range(layer.k)
                for n in range(first, min(first + columns, layer.n))
            ]
            order = [k * layer.n + n if layer.k_major else n * layer.k + k for n, k in places]
        for position, element in enumerate(order):
            for bit in range(bits):
                cell = geometry.cell(word + position // slots, bits * (position % slots) + bit)
                found[layer.weight_name, element, bit] = int(cell)
        word += -(-len(order) // slots)
    return found


def test_every_stored_bit_of_a_recurrent_network_lies_where_it_is_fetched_to():
    workload, network = trace(Text(), [Integers((5,))]), Text()
    geometry = weight_geometry("resident", workload, PAPER, Geometry(1, 64, 64, 64), 8)
    faulty = FaultyNetwork(network)
    chip = in_accelerator(all_weak(geometry), faulty, workload, PAPER, "resident")
    word, bit, _ = chip.faults(0.9)
    offset = {layer.name: layer.offset for layer in faulty.layer_table}
    expected = slow_cells(workload, PAPER, geometry)
    found = dict(zip(zip(word.tolist(), bit.tolist(), strict=True), chip.hits.fault.tolist(), strict=True))
    assert found == {(offset[name] + element, b): cell for (name, element, b), cell in expected.items()}
    assert len(word) == 8 * faulty.words.size  # every bit of every word, once


@pytest.mark.parametrize("name", ["bf16", "mxint8", "mxfp4"])
def test_every_bit_of_other_words_lies_in_a_cell_and_shared_exponents_before_what_shares_them(name):
    network, form = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.Linear(96, 5)), WordFormat(name=name)
    plain = trace(network, (1, 6, 6))
    workload = with_exponents(plain, network, form)
    assert (workload == plain) == (name == "bf16")
    words = [(layer.name, layer.weights) for layer in workload.layers if layer.weights]
    each = 8 // form.bits  # a row of 9 taps has a block of its own, one of 96 has three
    blocks = [] if name == "bf16" else [("0.weight.exponents", 6 * each), ("2.weight.exponents", 15 * each)]
    assert words == [*blocks[:1], ("0", 54), *blocks[1:], ("2", 480)]
    geometry = weight_geometry("resident", workload, PAPER, Geometry(1, 64, 64, 64), form.bits)
    faulty = FaultyNetwork(network, form)
    chip = in_accelerator(all_weak(geometry), faulty, plain, PAPER, "resident")
    word, bit, _ = chip.faults(0.9)
    offset = {layer.name: layer.offset for layer in faulty.layer_table}
    found = dict(zip(zip(word.tolist(), bit.tolist(), strict=True), chip.hits.fault.tolist(), strict=True))
    expected = slow_cells(workload, PAPER, geometry, form.bits)
    assert found == {(offset[tensor] + element, b): cell for (tensor, element, b), cell in expected.items()}
    assert len(word) == form.bits * faulty.words.size
    faulty.set_faults(*chip.faults(0.9))
    assert faulty.flip_rate() == 1
    hardened = in_accelerator(all_weak(geometry), faulty, plain, PAPER, "resident", "hardened_msb:1")
    assert np.unique(hardened.faults(0.9)[1]).tolist() == list(range(form.bits - 1))
    # one bit of each memory word is wrong, or two: all are corrected, or none is, through words packed and unpacked
    for each, wrong in ((64, False), (32, True)):
        cells = np.arange(0, geometry.cells, each)
        part = replace(all_weak(geometry), cell=cells, critical_voltage=np.ones(len(cells), np.float32))
        part = replace(part, kind=np.full(len(cells), 2, np.uint8))
        secded = in_accelerator(part, faulty, plain, PAPER, "resident", "secded72")
        assert (len(secded.faults(0.9)[0]) > 0) == wrong


def test_fetching_shared_exponents_changes_nothing_else():
    """Layers keep their order and their sources; the exponents cost their own reads of the weight buffer."""
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))
    plain = trace(network, (1, 6, 6))
    more = with_exponents(plain, network, WordFormat(name="mxint8"))
    before, after = (simulate(net, PAPER) for net in (plain, more))
    kept = [i for i, layer in enumerate(more.layers) if not layer.name.endswith("exponents")]
    assert [more.layers[i].name for i in kept] == [layer.name for layer in plain.layers]
    for i, layer in zip(kept, plain.layers, strict=True):
        assert [kept.index(s) if s >= 0 else s for s in more.layers[i].sources] == list(layer.sources)
    assert np.array_equal(after.layers[kept], before.layers)
    assert after.weight_word_reads().sum() - before.weight_word_reads().sum() == (6 + 15) / 8


def test_wide_words_are_read_by_more_accesses():
    net, wide = Workload("n", (linear("fc", 1, 64, 8),)), for_words(PAPER, 16)
    reads = [simulate(net, machine).weight_word_reads().sum() for machine in (PAPER, wide)]
    assert reads[1] == 2 * reads[0] == 64 * 8 / 4


def test_what_no_fault_reaches_is_named():
    network = Text()
    workload = trace(network, [Integers((5,))])
    assert list(weight_parameters(network)) == [
        *("own", "table.weight", "bag.weight"),
        *(f"rnn.weight_{part}_l0{way}" for way in ("", "_reverse") for part in ("ih", "hh", "hr")),
        "last.weight",
    ]
    assert not_in_weak_cells(network, workload) == ["place (6)", "biases and normalisation (115 numbers)"]
    network.idle = nn.Linear(4, 4, bias=False)
    assert not_in_weak_cells(network, workload)[0] == "idle.weight (16)"
    network.stored_weights = ()
    with pytest.raises(InputError, match=r"own.*stored_weights"):
        not_in_weak_cells(network, workload)
    network.stored_weights = ("owm",)
    with pytest.raises(InputError, match="owm"):
        weight_parameters(network)


def test_a_weight_that_is_no_word_is_refused_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    source = SOURCE.replace("* self.scale", "@ self.scale").replace("torch.ones(16)", "torch.eye(16)")
    (tmp_path / "product_of_this_test.py").write_text(source)
    given = {"name": "product", "networks": [{"name": "product_of_this_test:Rows"}], "voltages": [0.8]}
    allow_folder(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"weight = 'scale' .*stored_weights"):
        check(parse_study(given, "here"))
    (tmp_path / "listed_of_this_test.py").write_text(
        source.replace("def forward", "stored_weights = ('scale',)\n\n    def forward")
    )
    check(parse_study({**given, "networks": [{"name": "listed_of_this_test:Rows"}]}, "here"))


def test_a_study_of_a_recurrent_network(tmp_path, monkeypatch, capsys):
    (tmp_path / "rows_of_this_test.py").write_text(SOURCE)
    study = tmp_path / "rows.yaml"
    study.write_text(
        """
name: rows
dataset: {name: digits, test_images: 60}
networks:
  - {name: rows, build: "rows_of_this_test:Rows", training: {epochs: 1, flip: false, shift: 0}}
sram: {structures: [iid], schedule: resident}
voltages: [1.0, 0.7]
chips: {evaluation: 2}
protections: [none]
"""
    )
    assert run("sweep", study, "--out", tmp_path / "out", "--dry-run") == 0
    # biases: 2 x 48 of the recurrent layer, 10 of the head
    assert (
        "not in weak cells of rows: idle.weight (4), scale (16), biases and normalisation (106 numbers)"
        in capsys.readouterr().out
    )
    assert run("sweep", study, "--out", tmp_path / "out", "--workers", 1) == 0
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert (rows[rows.voltage == 0.7].flip_rate > 0).all()
    assert (rows[rows.voltage == 1.0].flip_rate == 0).all()
    assert (
        "of rows: idle.weight (4), scale (16)"
        in json.loads((tmp_path / "out" / "provenance.json").read_text())["notes"]["not in weak cells"]
    )
    assert run("sensitivity", study, "--out", tmp_path / "out", "--voltage", 0.7, "--workers", 1) == 0
    parts = pd.read_csv(tmp_path / "out" / "sensitivity.csv").query("part == 'layer'").set_index("name")
    assert list(parts.index) == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "head", "idle"]
    assert parts.reads_share["idle"] == 0
    assert 0 < 1 - parts.reads_share.sum() < 0.01  # the rest are those of `scale`, which is no word
    assert (parts.flip_rate > 0).tolist() == [True, True, True, False]
