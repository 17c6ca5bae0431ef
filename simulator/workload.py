"""What is computed: the layers of a network as records, whichever framework or file they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from sram.errors import InputError
from sram.names import check_names

# The systolic array multiplies for these kinds; every other kind runs on the vector unit.
ARRAY_KINDS = ("conv", "linear", "matmul")
VECTOR_KINDS = ("pool", "elementwise", "norm", "activation", "softmax", "resize", "move")
TOTALS = ("total", "total (partial)")


@dataclass(frozen=True)
class Layer:
    """One operator of a network. Sizes count elements of one sample; only `batch` multiplies them.

    On the array, for each of `batch` samples and `groups` groups: an (m x k) input matrix times (k x n) weights.
    conv: m output pixels, k = kernel_h * kernel_w * in_channels / groups taps, n = out_channels / groups filters.
    Transposed conv, in the scatter form that multiplies no inserted zero: m *input* pixels, k = in_channels / groups,
    n = kernel_h * kernel_w * out_channels / groups products, which are added into overlapping outputs.
    linear: m rows that share the weights. matmul: two activations (attention), `groups` products a sample.
    conv1d has height 1. A convolution whose kernel is computed from the input has no weights.

    On the vector unit (kind in VECTOR_KINDS): `operations` scalar operations, `elements_read`, `elements_written`.
    Operands that are parameters are not counted as read from the activation buffer; an elementwise operand that is a
    parameter of more than one element (a scale for every pixel) is read from the weight buffer, `constants` elements a
    sample. Scales and shifts behind an array layer (BatchNorm) are folded into it. A look-up in a stored table (an
    embedding) is a move whose `weights` are the table's elements, `constants` those of the rows that a sample reads.

    `weights` is the number of stored weights, `weight_name` the parameter's name in the module tree, `weight_offset`
    the first element within it: layers that share elements share one stored copy of them. `k_major`: they are stored
    tap by tap, n at a time (as in x @ W, and in transposed convolutions), not filter by filter. `bias`: a constant for
    each filter starts its sums, at no cost. `folded`: operations of BatchNorm that
    are folded into it, at no cost, either. `sources` are the indices, in the workload, of the layers whose outputs are
    read; -1 is the network's input. `operands` says which of several operands comes from where: (sources, elements a
    sample) of each, in the operator's order; empty where all of them are one operand. `cache`: of a decoder's keys and
    values (`simulator.decoder`), whether its output stays as some, or its second operand is some.

    >>> layer = conv("stem", 32, 32, 3, 64, kernel=3, padding=1)
    >>> (layer.m, layer.k, layer.n), layer.macs, layer.weights
    ((1024, 27, 64), 1769472, 1728)
    """

    name: str
    kind: str
    batch: int = 1
    groups: int = 1
    m: int = 0
    k: int = 0
    n: int = 0
    in_h: int = 1
    in_w: int = 1
    in_channels: int = 0
    out_h: int = 1
    out_w: int = 1
    out_channels: int = 0
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    padding_top: int = 0
    padding_left: int = 0
    padding_bottom: int = 0
    padding_right: int = 0
    dilation_h: int = 1
    dilation_w: int = 1
    transposed: bool = False
    weight_name: str | None = None
    weight_offset: int = 0
    weights: int = 0
    k_major: bool = False
    bias: bool = False
    folded: int = 0
    operations: int = 0
    elements_read: int = 0
    elements_written: int = 0
    constants: int = 0
    sources: tuple[int, ...] = ()
    operands: tuple[tuple[tuple[int, ...], int], ...] = ()
    operator: str = ""
    cache: Literal["", "read", "write"] = ""

    @property
    def on_array(self) -> bool:
        """Whether the array runs it, not the vector unit."""
        return self.kind in ARRAY_KINDS

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole batch; 0 on the vector unit."""
        return self.batch * self.groups * self.m * self.k * self.n

    @property
    def ifmap_elements(self) -> int:
        """Elements of the streaming operand of one sample, padding not included."""
        return self.in_h * self.in_w * self.in_channels

    @property
    def filter_elements(self) -> int:
        """Elements of the second operand: the stored weights, or where that is an activation, its elements a sample."""
        return self.weights or self.groups * self.k * self.n

    @property
    def ofmap_elements(self) -> int:
        """Elements of the output of one sample."""
        return self.out_h * self.out_w * self.out_channels


@dataclass(frozen=True)
class Workload:
    """The layers of a network in the order in which they run.

    `batch` is the number of samples that run together. `unknown` lists, as "name: operator", what the reader met and
    cannot count: it is never dropped silently. `outputs`: layers whose outputs leave the network, as far as later
    layers read them, too; an output that nobody reads leaves it anyway.

    >>> net = Workload("two", (linear("a", 1, 8, 4), linear("b", 1, 4, 2)))
    >>> net.macs, net.weights, [layer.name for layer in net.array_layers]
    (40, 40, ['a', 'b'])
    """

    name: str
    layers: tuple[Layer, ...]
    unknown: tuple[str, ...] = ()
    batch: int = 1
    outputs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_names("network", [self.name])
        stored = (layer.weight_name for layer in self.layers if layer.weight_name is not None)
        check_names(self.name, [*(layer.name for layer in self.layers), *stored, *self.unknown])

    @property
    def total(self) -> str:
        """What sums over the layers are called: those of a network that is not counted whole say so."""
        return TOTALS[bool(self.unknown)]

    @property
    def array_layers(self) -> tuple[Layer, ...]:
        """The layers that the array runs."""
        return tuple(layer for layer in self.layers if layer.on_array)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole batch."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Stored weights; a weight that several layers share counts once."""
        return sum(count for _, _, count in self.tensors())

    def tensors(self) -> list[tuple[str, int, int]]:
        """(parameter, first element, elements) of all that is stored, in the order of first use; none overlap.

        >>> both = linear("whole", 1, 8, 4, weight_name="w"), linear("half", 1, 8, 2, weight_name="w", weight_offset=16)
        >>> Workload("shared", both).tensors()
        [('w', 0, 32)]
        """
        ranges: dict[str, list[tuple[int, int]]] = {}
        for layer in self.layers:
            if layer.weights:
                start, end = layer.weight_offset, layer.weight_offset + layer.weights
                apart = []
                for other in ranges.get(stored_name(layer), []):
                    if other[0] < end and start < other[1]:
                        start, end = min(start, other[0]), max(end, other[1])
                    else:
                        apart.append(other)
                ranges[stored_name(layer)] = [*apart, (start, end)]
        found = {}
        for layer in self.layers:
            if layer.weights:
                name, first = stored_name(layer), layer.weight_offset
                start, end = next(one for one in ranges[name] if one[0] <= first < one[1])
                found[name, start] = (name, start, end - start)
        return list(found.values())

    def with_batch(self, batch: int) -> Workload:
        """The same network for `batch` samples at a time, each of what it is now."""
        if batch < 1:
            raise InputError(self.name, "batch", batch, "at least 1 sample")
        layers = tuple(replace(layer, batch=layer.batch * batch) for layer in self.layers)
        return replace(self, layers=layers, batch=self.batch * batch)


def conv(  # noqa: PLR0913  the arguments of torch's convolutions, each of which a layer may have
    name: str,
    in_h: int,
    in_w: int,
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: int | tuple[int, ...] = 0,
    batch: int = 1,
    **more: Any,
) -> Layer:
    """A convolution. Pairs are (height, width), four paddings (top, left, bottom, right); `more` sets fields of Layer.

    >>> up = conv("up", 8, 8, 64, 32, kernel=4, stride=2, padding=1, transposed=True)
    >>> (up.out_h, up.out_w), (up.m, up.k, up.n)
    ((16, 16), (64, 64, 512))
    """
    kh, kw = _pair(kernel)
    sh, sw = _pair(stride)
    dh, dw = _pair(dilation)
    oh, ow = _pair(output_padding)
    top, left, bottom, right = padding if isinstance(padding, tuple) and len(padding) == 4 else _pair(padding) * 2
    if min(in_channels, out_channels, in_h, in_w, kh, kw, sh, sw, dh, dw) < 1:
        raise InputError(name, "sizes", "0 or less", "1 or more of channels, pixels, kernel, stride and dilation")
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise InputError(name, "groups", groups, f"a divisor of {in_channels} and of {out_channels} channels")
    span_h, span_w = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    if transposed:
        out_h = (in_h - 1) * sh - top - bottom + span_h + oh
        out_w = (in_w - 1) * sw - left - right + span_w + ow
        m, k, n = in_h * in_w, in_channels // groups, kh * kw * out_channels // groups
    else:
        out_h = (in_h + top + bottom - span_h) // sh + 1
        out_w = (in_w + left + right - span_w) // sw + 1
        m, k, n = out_h * out_w, kh * kw * in_channels // groups, out_channels // groups
    if out_h < 1 or out_w < 1:
        raise InputError(name, "kernel", f"{kh} x {kw} on {in_h} x {in_w}", "one that fits into the padded input")
    fields: dict[str, Any] = dict(
        name=name,
        kind="conv",
        batch=batch,
        groups=groups,
        m=m,
        k=k,
        n=n,
        in_h=in_h,
        in_w=in_w,
        in_channels=in_channels,
        out_h=out_h,
        out_w=out_w,
        out_channels=out_channels,
        kernel_h=kh,
        kernel_w=kw,
        stride_h=sh,
        stride_w=sw,
        padding_top=top,
        padding_left=left,
        padding_bottom=bottom,
        padding_right=right,
        dilation_h=dh,
        dilation_w=dw,
        transposed=transposed,
        weight_name=f"{name}.weight",
        weights=groups * kh * kw * (in_channels // groups) * (out_channels // groups),
    )
    return Layer(**(fields | more))


def linear(name: str, rows: int, in_features: int, out_features: int, batch: int = 1, **more: Any) -> Layer:
    """A fully connected layer on `rows` vectors of a sample, stored as rows x 1 pixels of in_features channels.

    >>> linear("fc", 1, 512, 10).macs
    5120
    """
    if min(rows, in_features, out_features) < 1:
        raise InputError(name, "sizes", (rows, in_features, out_features), "1 or more rows and features")
    fields: dict[str, Any] = dict(
        name=name,
        kind="linear",
        batch=batch,
        m=rows,
        k=in_features,
        n=out_features,
        in_h=rows,
        in_channels=in_features,
        out_h=rows,
        out_channels=out_features,
        weight_name=f"{name}.weight",
        weights=in_features * out_features,
    )
    return Layer(**(fields | more))


def matmul(name: str, m: int, k: int, n: int, groups: int = 1, batch: int = 1, **more: Any) -> Layer:
    """`groups` products (m x k) times (k x n) a sample, both operands activations.

    The first is stored as m x 1 pixels of groups * k channels.

    >>> matmul("attention.scores", 197, 64, 197, groups=6).macs == 6 * 197 * 64 * 197
    True
    """
    fields: dict[str, Any] = dict(
        name=name,
        kind="matmul",
        batch=batch,
        groups=groups,
        m=m,
        k=k,
        n=n,
        in_h=m,
        in_channels=groups * k,
        out_h=m,
        out_channels=groups * n,
    )
    return Layer(**(fields | more))


def stored_name(layer: Layer) -> str:
    """The parameter that holds the layer's weights."""
    return layer.weight_name or layer.name


def name_layers(layers: list[Layer], places: list[tuple[str, str]]) -> list[Layer]:
    """Layers with names that follow the module tree; places are (module, operator) of each.

    The module's name, with the operator where a module has several; #2, #3 where one repeats. A layer whose weights
    belong to a part of the module is called after that part.
    """
    operators: dict[str, set[str]] = {}
    for path, op in places:
        operators.setdefault(path, set()).add(op)
    seen: dict[str, int] = {}
    named = []
    for layer, (path, op) in zip(layers, places, strict=True):
        name = path if len(operators[path]) == 1 and path else f"{path}.{op}".lstrip(".")
        owner = (layer.weight_name or "").removesuffix("weight").rstrip("._")
        if owner and (not path or owner == path or owner.startswith(path + ".")):
            name = owner
        seen[name] = seen.get(name, 0) + 1
        named.append(replace(layer, name=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return named


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
