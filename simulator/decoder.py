"""Decoder-only transformers as workloads: the prompt (prefill), and token after token behind a cache (decode).

A decoder is a few sizes; a run of it computes `tokens` of each sequence behind `context` tokens whose keys and values
are kept. Linear layers share their weights between all tokens and sequences of the run. Attention is, for each sequence
and key/value head, products of the queries of all its heads (grouped queries: Ainslie et al., EMNLP 2023) with the keys
and with the values of all tokens so far; what lies beyond a query is computed and masked, as in torch. Logits are those
of the last token alone.

**Cache.** New keys (behind the rotation) and values are written where they stay, and all of them are read for each
query: from DRAM, or where the accelerator has a `cache_buffer` from that, straight into the array. The search of a
schedule prices such reads as those of the weight buffer.

**Vector unit**, in operations an element: normalisation as everywhere (simulator/readers), softmax 5, rotation of half
the elements by the other half (Su et al., arXiv 2104.09864) 3, an activation function 1, a product or sum 1. The
look-up of a token reads one row of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from simulator import userfile
from simulator.accelerator import Accelerator
from simulator.readers.collector import LAYER_NORM, RMS_NORM
from simulator.workload import Layer, Workload, linear, matmul
from sram.errors import InputError
from sram.lazy import callable_module

Norm = Literal["layer", "rms"]
Biases = Literal["none", "qkv", "all"]
SOFTMAX, ROTATION = 5, 3
MOST, MOST_LAYERS = 1 << 24, 1024
PRESETS = Path(__file__).parent / "decoders"


@dataclass(frozen=True)
class Decoder:
    """A decoder-only transformer by its sizes.

    `heads` of queries and `kv_heads` of keys and values, each `head_width` wide; `hidden`: the width inside the MLP,
    which is `gated` (three matrices) or not (two). `tied`: the head is the table of tokens. `positions`: rows of a
    table of learned positions, 0: none. `rotary`: queries and keys are rotated.

    >>> gpt2 = decoder("gpt2")
    >>> gpt2.parameters, gpt2.cache_elements
    (124439808, 18432)
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    gated: bool = False
    norm: Norm = "rms"
    biases: Biases = "none"
    tied: bool = False
    positions: int = 0
    rotary: bool = False
    note: str = ""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for key in ("layers", "width", "heads", "kv_heads", "head_width", "hidden", "vocabulary"):
            most = MOST_LAYERS if key == "layers" else MOST
            if not 1 <= getattr(self, key) <= most:
                raise InputError(f"decoder {self.name}", key, getattr(self, key), f"1 to {most}")
        if self.heads % self.kv_heads:
            raise InputError(f"decoder {self.name}", "kv_heads", self.kv_heads, f"a divisor of heads = {self.heads}")
        if not 0 <= self.positions <= MOST:
            raise InputError(f"decoder {self.name}", "positions", self.positions, f"0 to {MOST}")
        for key, kinds in (("norm", Norm), ("biases", Biases)):
            if getattr(self, key) not in get_args(kinds):
                raise InputError(f"decoder {self.name}", key, getattr(self, key), ", ".join(get_args(kinds)))

    @property
    def cache_elements(self) -> int:
        """Elements of keys and values that a token leaves."""
        return 2 * self.layers * self.kv_heads * self.head_width

    @property
    def parameters(self) -> int:
        """Of the whole network: tables, matrices, biases, scales and shifts of its norms."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        matrices = 2 * self.width * (queries + keys) + (2 + self.gated) * self.width * self.hidden
        biases = 0 if self.biases == "none" else queries + 2 * keys
        biases += 2 * self.width + (1 + self.gated) * self.hidden if self.biases == "all" else 0
        norm = self.width * (2 if self.norm == "layer" else 1)
        tables = self.vocabulary * (1 if self.tied else 2) + self.positions
        return tables * self.width + self.layers * (matrices + biases + 2 * norm) + norm

    def workload(self, tokens: int = 1, context: int = 0, batch: int = 1) -> Workload:
        """A run of `tokens` of each of `batch` sequences behind `context` tokens in the cache.

        Prefill: all tokens of the prompt, context 0. Decode: 1 token. Raises InputError.

        >>> prompt, step = decoder("gpt2").workload(100), decoder("gpt2").workload(context=100)
        >>> round(prompt.macs / step.macs, 1)
        69.5
        """
        where = f"decoder {self.name}"
        for key, value, least in (("tokens", tokens, 1), ("context", context, 0), ("batch", batch, 1)):
            if not least <= value <= MOST:
                raise InputError(where, key, value, f"{least} to {MOST}")
        if self.positions and tokens + context > self.positions:
            allowed = f"at most {self.positions}, the positions that it has learned"
            raise InputError(where, "tokens + context", tokens + context, allowed)
        run = f"{self.name}, {tokens} token{'s' * (tokens > 1)} behind {context}"
        return _Run(self, tokens, context, batch).workload(run)

    def check_cache(self, machine: Accelerator, tokens: int, batch: int = 1) -> None:
        """InputError where the keys and values of so many tokens of each sequence do not fit into the cache buffer."""
        if machine.cache_buffer is None:
            return
        need, room = self.cache_elements * tokens * batch * machine.ofmap_bits / 8, machine.cache_buffer.capacity_bytes
        if need > room:
            most = int(room * 8 / machine.ofmap_bits / self.cache_elements / batch)
            allowed = f"at most {most} tokens of each of {batch}: {need:,.0f} of {room:,} bytes of cache_buffer"
            raise InputError(f"decoder {self.name} on {machine.name}", "tokens + context", tokens, allowed)


def decoder_names() -> list[str]:
    """The presets that come with the package.

    >>> "llama-3.2-1b" in decoder_names()
    True
    """
    return userfile.presets(PRESETS)


def decoder(name_or_path: str | Path) -> Decoder:
    """A preset by name, or a decoder from a YAML file whose keys are the fields of Decoder."""
    return userfile.named(PRESETS, name_or_path, Decoder, "decoder")


class _Run:
    """The layers of one run, as they come."""

    def __init__(self, of: Decoder, tokens: int, context: int, batch: int):
        self.of, self.tokens, self.context, self.batch = of, tokens, context, batch
        self.layers: list[Layer] = []
        self.kept: list[int] = []

    def workload(self, name: str) -> Workload:
        d = self.of
        looked_up = self.tokens * d.width
        x = self._vector("embedding", "move", looked_up, 1, (-1,))
        table: dict[str, Any] = {
            "weight_name": "embedding.weight",
            "weights": d.vocabulary * d.width,
            "constants": looked_up,
        }
        self.layers[x] = replace(self.layers[x], elements_read=self.tokens, **table)
        if d.positions:
            x = self._vector("positions", "elementwise", looked_up, 1, (x,))
            self.layers[x] = replace(self.layers[x], constants=looked_up)
        for i in range(d.layers):
            x = self._block(f"layers.{i}", x)
        x = self._norm("norm", x)
        stored = f"{'embedding' if d.tied else 'head'}.weight"
        logits = linear("head", 1, d.width, d.vocabulary, batch=self.batch, weight_name=stored, sources=(x,))
        return Workload(name, (*self.layers, logits), (), self.batch, tuple(self.kept))

    def _block(self, name: str, x: int) -> int:
        d, rows = self.of, self.tokens
        keys, so_far = d.kv_heads * d.head_width, self.context + rows
        y = self._norm(f"{name}.attention_norm", x)
        qkv = d.biases != "none"
        query = self._linear(f"{name}.q", y, d.width, d.heads * d.head_width, qkv)
        key, value = (self._linear(f"{name}.{part}", y, d.width, keys, qkv) for part in "kv")
        if d.rotary:
            query = self._vector(f"{name}.q_rotation", "elementwise", rows * d.heads * d.head_width, ROTATION, (query,))
            key = self._vector(f"{name}.k_rotation", "elementwise", rows * keys, ROTATION, (key,))
        for at in (key, value):
            self.layers[at] = replace(self.layers[at], cache="write")
        self.kept += [key, value]
        queries = rows * d.heads // d.kv_heads  # of a head of keys
        scores = self._product(f"{name}.scores", (queries, d.head_width, so_far), query, key)
        weights = self._vector(f"{name}.softmax", "softmax", rows * d.heads * so_far, SOFTMAX, (scores,))
        mixed = self._product(f"{name}.values", (queries, so_far, d.head_width), weights, value)
        x = self._sum(f"{name}.attention_sum", x, self._linear(f"{name}.o", mixed, d.heads * d.head_width, d.width))
        y = self._norm(f"{name}.mlp_norm", x)
        inner = self._linear(f"{name}.up", y, d.width, d.hidden)
        if d.gated:
            gate = self._linear(f"{name}.gate", y, d.width, d.hidden)
            gate = self._vector(f"{name}.activation", "activation", rows * d.hidden, 1, (gate,))
            inner = self._sum(f"{name}.gated", inner, gate, d.hidden)
        else:
            inner = self._vector(f"{name}.activation", "activation", rows * d.hidden, 1, (inner,))
        return self._sum(f"{name}.mlp_sum", x, self._linear(f"{name}.down", inner, d.hidden, d.width))

    def _add(self, layer: Layer) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1

    def _linear(self, name: str, x: int, inputs: int, outputs: int, bias: bool = False) -> int:
        bias = bias or self.of.biases == "all"
        return self._add(linear(name, self.tokens, inputs, outputs, batch=self.batch, bias=bias, sources=(x,)))

    def _product(self, name: str, sizes: tuple[int, int, int], x: int, kept: int) -> int:
        """With keys or values: those of this run, and those that it finds."""
        m, k, n = sizes
        sources = (kept, -1) if self.context else (kept,)
        of = {"operands": (((x,), self.of.kv_heads * m * k), (sources, self.of.kv_heads * k * n)), "cache": "read"}
        merged = tuple(sorted({x, *sources}))
        return self._add(matmul(name, m, k, n, groups=self.of.kv_heads, batch=self.batch, sources=merged, **of))

    def _norm(self, name: str, x: int) -> int:
        operations = LAYER_NORM if self.of.norm == "layer" else RMS_NORM
        return self._vector(name, "norm", self.tokens * self.of.width, operations, (x,))

    def _sum(self, name: str, a: int, b: int, width: int | None = None) -> int:
        elements = self.tokens * (width or self.of.width)
        at = self._vector(name, "elementwise", elements, 1, tuple(sorted((a, b))))
        operands = tuple(((source,), elements) for source in (a, b))
        self.layers[at] = replace(self.layers[at], elements_read=2 * elements, operands=operands)
        return at

    def _vector(self, name: str, kind: str, elements: int, operations: int, sources: tuple[int, ...]) -> int:
        sizes: dict[str, Any] = {"elements_read": elements, "elements_written": elements}
        done = elements * operations
        return self._add(Layer(name, kind, self.batch, operations=done, sources=sources, **sizes))


callable_module(__name__)
