"""What every reader of networks makes layers with, so that a network costs the same whichever form it comes in.

Frameworks and exporters fuse, and take apart, what is one thing: a bias beside its matrix product, normalisation in the
convolution before it, an activation function as five operators. Here it is brought to one form:

- A function of one element (operators on one tensor and plain numbers) is a table: one layer, one operation an element.
- A scale and shift of each filter behind a convolution or linear layer (BatchNorm, a bias) is folded into the numbers
  by which its sums are read, and those of each channel behind a normalisation into its own.
- A product with one number behind or before products of matrices is a change of scale.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from simulator.array.memory import outputs_of, readers_of
from simulator.workload import Layer, Workload, conv, linear, matmul, name_layers

# Of normalisation with statistics that are constants: a scale and a shift of each channel.
BATCH_NORMS = frozenset(
    ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "batchnormalization")
)
VECTOR_SIZES = "in_h in_w in_channels out_h out_w out_channels kernel_h kernel_w stride_h stride_w".split()
SCALES = frozenset(("mul", "div"))
SHIFTS = frozenset(("add", "sub"))
# Operations an element: sum; subtract, square, add; multiply by 1/sigma; scale, shift. Square, add, multiply, scale.
LAYER_NORM, RMS_NORM = 7, 4
ROOTS, MEANS = frozenset(("sqrt", "rsqrt", "reciprocal")), frozenset(("mean", "reducemean"))
SQUARES = frozenset(("pow", "mul", "square"))


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor, by what it comes from: layers, parameters, or neither (made at run time without an input).

    `root`: the tensor that it is a function of, element by element. `filters`: of what an array layer made, as it made
    it, the axis of its filters, counted from the last; -1 where both operands are activations.
    """

    shape: tuple[int, ...] = ()
    layers: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    root: Value | None = None
    filters: int | None = None

    @property
    def constant(self) -> bool:
        """Whether it is made of parameters alone."""
        return bool(self.parameters) and not self.layers

    @property
    def size(self) -> int:
        """Elements."""
        return int(math.prod(self.shape))


class Place(NamedTuple):
    """Where a layer comes from: the module, the operator's short name, and its name in the file."""

    path: str
    op: str
    operator: str


class Weight(NamedTuple):
    """A stored operand: its parameter, the first element there; whether it is the left one, tap by tap; its copies."""

    name: str
    offset: int = 0
    left: bool = False
    k_major: bool = False
    copies: int = 1


class Window(NamedTuple):
    """How a convolution moves; `padding` is before every axis, then after every axis."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()


class Collector:
    """Collects layers; `batch` is the extent of the first axis of the network's input."""

    def __init__(self, batch: int = 1):
        self.batch = batch
        self.layers: list[Layer] = []
        self.places: list[tuple[str, str]] = []  # module path and operator of each layer, for its name
        self.unknown: list[str] = []
        self.spare: set[int] = set()  # layers that go if nobody reads them: parts of one function
        self.affine: set[int] = set()  # layers that may be folded into the one that they read
        self.reads: dict[int, list[Value]] = {}  # the activations that a vector layer reads
        self.scales: set[int] = set()  # layers that multiply one tensor by one number

    def workload(self, name: str, outputs: Iterable[Value]) -> Workload:
        """What was collected, in one form; `outputs` are the values that the network returns."""
        leaving = {layer for value in outputs for layer in value.layers if layer >= 0}
        into = self._folded(leaving)
        kept = [i for i in range(len(self.layers)) if i not in into]
        moved = {old: new for new, old in enumerate(kept)}

        def found(sources: Iterable[int]) -> set[int]:
            parts = ({source} if source not in into else found(into[source]) for source in sources)
            return set().union(*parts)

        def renumbered(sources: Iterable[int]) -> tuple[int, ...]:
            return tuple(sorted(moved.get(source, source) for source in found(sources)))

        layers = []
        for layer in (self.layers[i] for i in kept):
            operands = tuple((renumbered(sources), elements) for sources, elements in layer.operands)
            layers.append(replace(layer, sources=renumbered(layer.sources), operands=operands))
        named = tuple(name_layers(layers, [self.places[i] for i in kept]))
        return Workload(name, named, tuple(self.unknown), self.batch, renumbered(leaving))

    def _folded(self, leaving: set[int]) -> dict[int, tuple[int, ...]]:
        """Layer that costs nothing -> what is read in its place."""
        readers = [set(r) for r in readers_of(Workload("", tuple(self.layers)))]
        into: dict[int, tuple[int, ...]] = {}
        for i in sorted(self.spare - leaving, reverse=True):
            if not readers[i]:
                into[i] = ()
                for source in self.layers[i].sources:
                    if source >= 0:
                        readers[source].discard(i)
        for i in sorted(self.affine - into.keys()):
            (source,) = self.layers[i].sources
            if readers[source] != {i} or source in leaving:
                continue
            base = source
            while base in into:
                (base,) = into[base]
            if self.layers[base].on_array or self.layers[base].kind == "norm":
                into[i] = (source,)
                norm = self.layers[i].operations if self.layers[i].kind == "norm" else 0
                self.layers[base] = replace(self.layers[base], folded=self.layers[base].folded + norm)
                if self.layers[base].on_array and self.places[i][1] in SHIFTS:
                    self.layers[base] = replace(self.layers[base], bias=True)
        for i in sorted(self.scales - leaving - into.keys()):
            if readers[i] and all(self.layers[reader].on_array for reader in readers[i]):
                into[i] = self.layers[i].sources
        return into

    def append(self, layer: Layer, place: Place, operands: Iterable[Value]) -> int:
        """Add a layer that reads `operands`, and return its index."""
        active = [value for value in dict.fromkeys(operands) if not value.constant]
        if len(active) > 1:
            layer = replace(layer, operands=tuple((value.layers, value.size // layer.batch) for value in active))
        symbols = {key for key, value in vars(layer).items() if type(value).__name__ == "SymInt"}  # torch's free sizes
        whole: dict[str, Any] = {key: int(getattr(layer, key)) for key in symbols}
        self.layers.append(replace(layer, sources=merged(active).layers, operator=place.operator, **whole))
        self.places.append((place.path, place.op))
        return len(self.layers) - 1

    def vector(
        self,
        kind: str,
        place: Place,
        operands: Sequence[Value],
        shape: tuple[int, ...],
        operations: int,
        pointwise: bool = False,
        read: int | None = None,
        pool: tuple[Sequence[int], Sequence[int]] = ((1, 1), (1, 1)),
    ) -> Value:
        """A layer on the vector unit that makes a tensor of `shape`, and that tensor.

        Reads are the activations among the operands, each once, as large as they are stored, or `read`. `pointwise`: an
        element of the result hangs on one element of each operand. `pool`: kernel and stride, of one axis or two.
        """
        active = [value for value in dict.fromkeys(operands) if value.layers]
        fixed = [value for value in dict.fromkeys(operands) if not value.layers]
        if found := self._normalised(place.op, active, shape):
            kind, active, operations = "norm", [found[0]], found[1]
            place, fixed, pointwise = place._replace(op="norm"), [], False
        given = active[0]
        alone = len(active) == 1 and (place.op != "div" or operands[0] is given)
        number = all(value.size == 1 for value in fixed)
        scales = alone and number and place.op in SCALES and (not given.root or given.layers[0] in self.scales)
        affine = alone and (place.op in BATCH_NORMS | SCALES | SHIFTS) and self._fits(given, fixed, shape, place.op)
        roots = list(dict.fromkeys(value.root or value for value in active))
        root = roots[0] if pointwise and number and len(roots) == 1 and tuple(roots[0].shape) == tuple(shape) else None
        if root:
            kind, active = "activation", [root]
        read = sum(value.size for value in active) if read is None else read
        written = int(math.prod(shape))
        batch = 1 if any(count % self.batch for count in (operations, read, written)) else self.batch
        kernel, stride = ((1, *sizes)[-2:] for sizes in pool)
        numbers = (*_pixels(active[0].shape, batch), *_pixels(shape, batch), *kernel, *stride)
        sizes: dict[str, Any] = dict(zip(VECTOR_SIZES, numbers, strict=True))
        sizes |= dict(operations=operations // batch, elements_read=read // batch, elements_written=written // batch)
        if pointwise and kind == "elementwise":
            sizes["constants"] = sum(value.size for value in fixed if value.size > 1)
        at = self.append(Layer(place.path, kind, batch, **sizes), place, active)
        self.reads[at] = active
        for chosen, group in ((root, self.spare), (affine, self.affine), (scales, self.scales)):
            if chosen:
                group.add(at)
        return Value(shape, (at,), root=root, filters=given.filters if affine else None)

    def _normalised(self, op: str, active: list[Value], shape: tuple[int, ...]) -> tuple[Value, int] | None:
        """What is normalised, and the operations of that, where (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) ends.

        Layer normalisation before opset 17 of ONNX, and by hand; without the means taken off, RMS normalisation.
        """
        if op not in SCALES or len(active) != 2:
            return None
        whole, below = sorted(active, key=lambda value: -value.size) if op == "mul" else active
        parts = []
        for ops in (ROOTS, MEANS, SQUARES):
            at, reads = self._made(below, ops)
            if len(reads) != 1:
                return None
            parts.append(at)
            below = reads[0]
        self.spare |= set(parts)
        (one, reads), (other, same) = (self._made(value, {"sub"}) for value in (whole, below))
        if below is whole and len(reads) != 2:
            return whole, RMS_NORM * whole.size
        at, averaged = self._made(reads[1], MEANS) if len(reads) == 2 and reads == same else (-1, [])
        if averaged != reads[:1] or not averaged:
            return None
        self.spare |= {one, other, at}
        return reads[0], LAYER_NORM * reads[0].size

    def _made(self, value: Value, ops: Collection[str]) -> tuple[int, list[Value]]:
        """The one vector layer that made a value, and what it reads; nothing if it is none of these operators."""
        at = value.layers[0] if len(value.layers) == 1 else -1
        return (at, self.reads[at]) if at in self.reads and self.places[at][1] in ops else (-1, [])

    def _fits(self, given: Value, fixed: list[Value], shape: tuple[int, ...], op: str) -> bool:
        """Whether constants are one for each filter of the layer that made `given`, or for each channel of a norm."""
        if len(given.layers) != 1 or given.layers[0] < 0:
            return False
        axes = {axis for value in fixed for axis, size in enumerate(reversed(value.shape)) if size > 1}
        if op in BATCH_NORMS:  # of channels, on the second axis
            axes = {len(shape) - 2}
        if given.filters is not None:
            return axes <= {given.filters}
        base = given.layers[0]
        while base in self.affine:
            (base,) = self.layers[base].sources
        layer = self.layers[base]
        return layer.kind == "norm" and len(axes) < 2 and outputs_of(layer) * layer.batch == given.size

    def product(
        self,
        place: Place,
        a: Value,
        b: Value,
        shape: tuple[int, ...],
        weight: Weight | None = None,
        transposed: tuple[bool, bool] = (False, False),
        bias: bool = False,
    ) -> Value:
        """A product of matrices, `a` or `b` transposed, of which `weight` may be one; `shape` is that of the result."""
        x = a.shape[::-1] if transposed[0] else a.shape
        y = (*b.shape[:-2], *b.shape[:-3:-1]) if transposed[1] and len(b.shape) > 1 else b.shape
        x, y = (1, *x) if len(x) == 1 else x, (*y, 1) if len(y) == 1 else y
        m, k, n = x[-2], x[-1], y[-1]
        products = math.prod(np.broadcast_shapes(*(tuple(map(int, size[:-2])) for size in (x, y))))
        if weight is None:
            batch = self.batch if products % self.batch == 0 else 1
            layer = matmul(place.path, m, k, n, groups=products // batch, batch=batch)
            return Value(shape, (self.append(layer, place, (a, b)),), filters=-1)
        if weight.left:  # W x: the weights' rows are the filters
            m, n = n, m
        rows = m * (products // weight.copies)
        batch = self.batch if rows % self.batch == 0 else 1
        stored = dict(weight_name=weight.name, weight_offset=weight.offset, k_major=weight.k_major)
        layer = linear(place.path, rows // batch, k, n, batch=batch, bias=bias, **stored)
        if (copies := weight.copies) > 1:
            layer = replace(
                layer, groups=copies, in_channels=copies * k, out_channels=copies * n, weights=copies * k * n
            )
        vector = len(b.shape) < 2
        filters = 1 - vector if weight.left else -vector
        return Value(shape, (self.append(layer, place, (a, b)),), filters=filters if copies == 1 else -1)

    def look_up(
        self, place: Place, indices: Value, shape: tuple[int, ...], weight: Weight, stored: int, moved: int
    ) -> Value:
        """Rows of a table of `stored` elements, `moved` elements in all, into a tensor of `shape`."""
        made = self.vector("move", place, (indices,), shape, operations=moved)
        layer = self.layers[made.layers[0]]
        self.layers[made.layers[0]] = replace(
            layer, weight_name=weight.name, weight_offset=weight.offset, weights=stored, constants=moved // layer.batch
        )
        return made

    def convolution(
        self,
        place: Place,
        x: Value,
        w: Value,
        shape: tuple[int, ...],
        window: Window,
        weight: Weight | None,
        bias: bool,
    ) -> Value:
        """A convolution of one or two axes; without `weight` its kernel is computed from the input: an activation."""
        axes = len(w.shape) - 2
        flat = axes == 1
        stored = dict(weight_name=weight.name, weight_offset=weight.offset) if weight else {}

        def pair(sizes: Sequence[int], ahead: int) -> tuple[int, ...]:
            return (ahead, *sizes) if flat else tuple(sizes)

        layer = conv(
            place.path,
            1 if flat else x.shape[-2],
            x.shape[-1],
            x.shape[-axes - 1],
            w.shape[1] * window.groups if window.transposed else w.shape[0],
            kernel=pair(w.shape[2:], 1),
            stride=pair(window.stride, 1),
            padding=(0, window.padding[0], 0, window.padding[1]) if flat else tuple(window.padding),
            dilation=pair(window.dilation, 1),
            groups=window.groups,
            transposed=window.transposed,
            output_padding=pair(window.output_padding or (0,) * axes, 0),
            batch=x.shape[0] if len(x.shape) == axes + 2 else 1,
            bias=bias,
            out_h=1 if flat else shape[-2],  # of a transposed convolution the file may choose it
            out_w=shape[-1],
            **stored,
        )
        if not weight:
            layer = replace(layer, weights=0, weight_name=None)
        return Value(shape, (self.append(layer, place, (x, w)),), filters=axes)


def merged(values: Iterable[Value], shape: tuple[int, ...] = ()) -> Value:
    """A tensor that comes from all of these."""
    parts = list(values)
    return Value(
        shape,
        tuple(sorted({layer for value in parts for layer in value.layers})),
        tuple(dict.fromkeys(key for value in parts for key in value.parameters)),
    )


def _pixels(shape: tuple[int, ...], batch: int) -> tuple[int, int, int]:
    """Height, width and channels as a buffer stores them: NCHW by its axes, anything else as rows of the last axis."""
    if len(shape) == 4 and shape[0] == batch:
        return shape[2], shape[3], shape[1]
    elements = int(math.prod(shape))
    channels = shape[-1] if len(shape) > 1 else elements
    return elements // batch // channels, 1, channels
