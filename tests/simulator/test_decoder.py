"""Are the counts of decoders right: by hand, against torch, and from phase to phase? Where do keys and values cost?"""

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simulator.accelerator import Buffer, accelerator
from simulator.array.cycles import simulate
from simulator.decoder import Decoder, decoder, decoder_names
from simulator.energy import energy
from simulator.operating_point import OperatingPoint, Supply
from simulator.readers.read import Integers, trace
from sram.errors import InputError
from tests.conftest import ROOT

SMALL = Decoder("small", layers=2, width=24, heads=6, kv_heads=2, head_width=8, hidden=40, vocabulary=50, gated=True)
EDGE = accelerator("edge")
WITH_CACHE = replace(EDGE, cache_buffer=Buffer(1 << 20, macros=4, rail="kv"), rails={**EDGE.rails, "kv": 0.8})


@pytest.mark.parametrize("name", decoder_names())
def test_presets_have_the_parameters_that_were_published(name):
    table = pd.read_csv(ROOT / "tests/data/decoder_parameters.csv").set_index("decoder")
    assert decoder(name).parameters == table.parameters[name]


class Attention(nn.Module):
    def __init__(self, d: Decoder):
        super().__init__()
        self.d, keys = d, d.kv_heads * d.head_width
        self.q, self.o = (
            nn.Linear(d.width, d.heads * d.head_width, d.biases != "none"),
            nn.Linear(d.heads * d.head_width, d.width, d.biases == "all"),
        )
        self.k, self.v = (nn.Linear(d.width, keys, d.biases != "none") for _ in "kv")

    def forward(self, y):
        n, t, _ = y.shape
        q, k, v = (part(y).view(n, t, -1, self.d.head_width).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.o(mixed.transpose(1, 2).reshape(n, t, -1))


class Block(nn.Module):
    def __init__(self, d: Decoder):
        super().__init__()
        self.d, self.attention = d, Attention(d)
        self.norms = nn.ModuleList(nn.LayerNorm(d.width) for _ in range(2))
        self.up, self.gate, self.down = (
            nn.Linear(d.width, d.hidden),
            nn.Linear(d.width, d.hidden) if d.gated else None,
            nn.Linear(d.hidden, d.width),
        )

    def forward(self, x):
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        inner = self.up(y) * F.silu(self.gate(y)) if self.gate else F.gelu(self.up(y))
        return x + self.down(inner)


class Network(nn.Module):
    def __init__(self, d: Decoder):
        super().__init__()
        self.table = nn.Embedding(d.vocabulary, d.width)
        self.blocks = nn.Sequential(*(Block(d) for _ in range(d.layers)))
        self.norm, self.head = nn.LayerNorm(d.width), nn.Linear(d.width, d.vocabulary, bias=False)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.table(x)))[:, -1])


def on_array(workload):
    return Counter((x.kind, x.groups, x.m, x.k, x.n, x.weights, x.ifmap_elements) for x in workload.array_layers)


def on_vector(workload):
    of = Counter()
    for layer in workload.layers:
        if not layer.on_array:
            of[layer.kind] += layer.operations
    return of


@pytest.mark.parametrize("gated", [False, True])
def test_a_prompt_is_what_torch_computes(gated):
    d = replace(SMALL, kv_heads=6, gated=gated, norm="layer", biases="all")
    ours, torchs = d.workload(7, batch=3), trace(Network(d), Integers((7,)), 3)
    assert not torchs.unknown
    assert on_array(ours) == on_array(torchs)
    assert (ours.weights, ours.layers[0].constants) == (torchs.weights, torchs.layers[0].constants)
    assert on_vector(ours) == on_vector(torchs)
    machine = replace(EDGE, keep_on_chip=False)
    cycles = [simulate(work, machine).layers["array_cycles"][[x.on_array for x in work.layers]].sum()
              for work in (ours, torchs)]  # fmt: skip
    assert cycles[0] == cycles[1]


def test_a_token_by_hand():
    """Width 24, 6 heads of 8 in 2 groups, 11 tokens in the cache: every product of one layer."""
    layers = {layer.name: layer for layer in SMALL.workload(context=11).layers}
    sizes = {name: (x.groups, x.m, x.k, x.n) for name, x in layers.items() if x.on_array}
    assert {
        name.removeprefix("layers.1."): size for name, size in sizes.items() if not name.startswith("layers.0")
    } == {
        "q": (1, 1, 24, 48),
        "k": (1, 1, 24, 16),
        "v": (1, 1, 24, 16),
        "scores": (2, 3, 8, 12),  # three queries of each group with 12 keys
        "values": (2, 3, 12, 8),
        "o": (1, 1, 48, 24),
        "up": (1, 1, 24, 40),
        "gate": (1, 1, 24, 40),
        "down": (1, 1, 40, 24),
        "head": (1, 1, 24, 50),
    }
    assert layers["layers.1.softmax"].operations == 5 * 6 * 12
    assert layers["layers.1.attention_norm"].operations == 4 * 24


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 9), st.integers(1, 3))
def test_tokens_one_by_one_are_the_products_of_all_at_once(tokens, context, batch):
    """Linear layers alike; of attention the half beyond each query is not computed."""
    steps = [SMALL.workload(1, context + i, batch) for i in range(tokens)]
    whole = SMALL.workload(tokens, context, batch)

    def macs(works, kind):
        return sum(x.macs for work in works for x in work.layers if x.kind == kind and x.name != "head")

    assert macs(steps, "linear") == macs([whole], "linear")
    each = 2 * SMALL.layers * SMALL.heads * SMALL.head_width * batch
    assert macs([whole], "matmul") == each * tokens * (context + tokens)
    assert macs(steps, "matmul") == each * sum(context + i + 1 for i in range(tokens))


def bytes_of(counts, name, which):
    return {x.name: int(row[name]) for x, row in zip(counts.workload.layers, counts.layers, strict=True) if which(x)}


def test_keys_and_values_go_to_dram_and_come_back_once_a_token():
    machine = replace(EDGE, weight_buffer=Buffer(1 << 20), keep_on_chip=False)
    counts = simulate(SMALL.workload(context=11), machine)
    assert set(bytes_of(counts, "filter_dram_read_bytes", lambda x: x.cache == "read").values()) == {2 * 8 * 12}
    assert set(bytes_of(counts, "ofmap_dram_write_bytes", lambda x: x.cache == "write").values()) == {2 * 8}
    grouped = sum(bytes_of(counts, "filter_dram_read_bytes", lambda x: x.cache == "read").values())
    alone = simulate(replace(SMALL, kv_heads=6).workload(context=11), machine)
    assert sum(bytes_of(alone, "filter_dram_read_bytes", lambda x: x.cache == "read").values()) == 3 * grouped


def test_a_cache_on_the_chip_moves_no_byte_of_them():
    work = SMALL.workload(context=11)
    counts = simulate(work, WITH_CACHE)
    assert not any(bytes_of(counts, "filter_dram_read_bytes", lambda x: x.cache == "read").values())
    assert not any(bytes_of(counts, "ofmap_dram_write_bytes", lambda x: x.cache == "write").values())
    spent = energy(counts)
    of_cache = {part: pj for part, pj in spent.parts.items() if part.owner == "cache_buffer"}
    read, written = (next(pj for part, pj in of_cache.items() if part.way == way) for way in ("read", "write"))
    figures = spent.sources().set_index("component").value
    array_reads = counts.layers["filter_sram_reads"][[x.cache == "read" for x in work.layers]].sum()
    assert read.sum() == pytest.approx(array_reads * 8 * figures["cache_buffer_read"] / 64)
    assert written.sum() == pytest.approx(SMALL.cache_elements * 8 * figures["cache_buffer_write"] / 64)
    # and nothing of it is left with the weight buffer
    of_weights = next(
        pj for part, pj in spent.parts.items() if part[:3] == ("activation_sram", "weight_buffer", "read")
    )
    assert of_weights.sum() == 0
    low = energy(counts, OperatingPoint((Supply("kv", 0.4, 0.8),)))
    dynamic = {part: low.parts[part].sum() / pj.sum() for part, pj in of_cache.items() if part.way != "leakage"}
    assert list(dynamic.values()) == pytest.approx([0.25, 0.25])
    others = [p for p in spent.parts if p.owner != "cache_buffer"]
    assert all(np.array_equal(low.parts[part], spent.parts[part]) for part in others)


def test_more_sequences_read_the_weights_once():
    one, eight = (simulate(SMALL.workload(context=40, batch=n), EDGE) for n in (1, 8))
    moved = [bytes_of(c, "filter_dram_read_bytes", lambda x: x.on_array and x.weights > 0) for c in (one, eight)]
    assert moved[0] == moved[1]
    assert eight.cycles <= 8 * one.cycles
    cached = [sum(bytes_of(c, "filter_dram_read_bytes", lambda x: x.cache == "read").values()) for c in (one, eight)]
    assert cached[1] == 8 * cached[0]


def test_a_network_without_a_cache_costs_what_it_did_beside_the_buffers_leakage():
    work = trace(nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)), (32,))
    counts = [simulate(work, machine).layers for machine in (EDGE, WITH_CACHE)]
    assert (counts[0] == counts[1]).all()
    plain, with_cache = (energy(simulate(work, machine)) for machine in (EDGE, WITH_CACHE))
    assert {p: pj.sum() for p, pj in plain.parts.items()} == {
        p: pj.sum() for p, pj in with_cache.parts.items() if p.owner != "cache_buffer"
    }


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [("kv_heads", 4, "a divisor of heads = 6"), ("width", 0, "1 to"), ("norm", "batch", "layer, rms"),
     ("biases", "some", "none, qkv, all"), ("positions", -1, "0 to"), ("layers", 1025, "1 to 1024")],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(key, value, allowed):
    with pytest.raises(InputError, match=allowed) as error:
        Decoder(**(asdict(SMALL) | {key: value}))
    assert error.value.key == key


def test_runs_that_cannot_be_are_refused():
    learned = replace(SMALL, positions=16)
    learned.workload(6, 10)
    with pytest.raises(InputError, match="at most 16"):
        learned.workload(6, 11)
    with pytest.raises(InputError, match="tokens"):
        SMALL.workload(0)
    tokens = WITH_CACHE.cache_buffer.capacity_bytes // SMALL.cache_elements
    SMALL.check_cache(WITH_CACHE, tokens)
    with pytest.raises(InputError, match=f"at most {tokens} tokens"):
        SMALL.check_cache(WITH_CACHE, tokens + 1)
    with pytest.raises(InputError, match=f"at most {tokens // 4} tokens of each of 4"):
        SMALL.check_cache(WITH_CACHE, tokens, batch=4)


def test_a_cache_is_of_one_core():
    with pytest.raises(InputError, match="none with several cores") as error:
        replace(WITH_CACHE, keep_on_chip=False, cores=2)
    assert error.value.key == "cache_buffer"


def test_a_file_is_a_decoder(tmp_path):
    fields = {key: value for key, value in asdict(SMALL).items() if key not in ("name", "note")}
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(f"{key}: {str(value).lower()}" for key, value in fields.items()))
    assert decoder(file) == replace(SMALL, name="mine")
    file.write_text("layers: 2\nwidht: 3\n")
    with pytest.raises(InputError, match="widht"):
        decoder(file)
    with pytest.raises(InputError, match="gpt2"):
        decoder("gpt5")
