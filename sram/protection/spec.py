"""Texts that name a chain of protections, such as "secded72+spare_columns:1".

A name that is not built in is looked for among the entry points `neuralfuse.protections` of installed packages;
else it is `package.module:callable` or `package.module:callable:ARGUMENT`. What is found is called like the makers in
KINDS.
"""

from collections.abc import Callable, Iterable

from sram import plugins
from sram.errors import InputError
from sram.protection.base import Protection, compose
from sram.protection.schemes import Boost, Canary, HardenedMsb, Interleave, Masking, Secded, Spares
from sram.protection.words import EIGHT_BIT, Layout

MOST = 4096  # lines, banks, cells or bits that a text may ask for


def _whole(name: str, argument: str) -> int:
    if not argument.isdecimal() or len(argument) > 5 or int(argument) > MOST:
        raise InputError("protection", name, argument, f"a whole number, at most {MOST}")
    return int(argument)


def _spares(argument: str) -> Spares:
    lines, _, method = argument.partition(":")
    rows, cross, columns = lines.partition("x")
    if not cross or method not in ("", "optimal"):
        raise InputError("protection", "spares", argument, "ROWSxCOLUMNS or ROWSxCOLUMNS:optimal")
    return Spares(_whole("spares", rows), _whole("spares", columns), bool(method))


def _boost(argument: str) -> Boost:
    try:
        return Boost(float(argument))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("protection", "boost", argument, "a number, in the unit of the curve") from None


def _hardened(argument: str, layout: Layout) -> HardenedMsb:
    everywhere, layers = [], []
    for rule in argument.split(";"):
        bits, at, patterns = rule.partition("@")
        if not (bits.isdecimal() and all(patterns.split(",")) == bool(at)):
            raise InputError("protection", "hardened_msb", argument, "BITS, BITS@LAYER,... or several, with ; between")
        if at:
            layers.append((_whole("hardened_msb", bits), tuple(patterns.split(","))))
        else:
            everywhere.append(_whole("hardened_msb", bits))
    if len(everywhere) > 1:
        raise InputError("protection", "hardened_msb", argument, "one number of bits for all other layers")
    return HardenedMsb(sum(everywhere), layout, tuple(layers))


GROUP = "neuralfuse.protections"
Maker = Callable[[str, Layout], Protection]  # from the text behind the colon and the layout of weights in a word
# name -> (how it is written, maker)
KINDS: dict[str, tuple[str, Maker]] = {
    "none": ("none", lambda _, layout: Protection()),
    "secded72": ("secded72", lambda _, layout: Secded(64)),
    "secded39": ("secded39", lambda _, layout: Secded(32)),
    "spare_columns": ("spare_columns:N", lambda n, layout: Spares(columns=_whole("spare_columns", n))),
    "spare_rows": ("spare_rows:N", lambda n, layout: Spares(rows=_whole("spare_rows", n))),
    "spares": ("spares:ROWSxCOLUMNS[:optimal]", lambda text, layout: _spares(text)),
    "hardened_msb": ("hardened_msb:BITS[@LAYERS][;BITS@LAYERS]", _hardened),
    "canary": ("canary:CELLS", lambda n, layout: Canary(_whole("canary", n))),
    "boost": ("boost:VOLTAGE", lambda v, layout: _boost(v)),
    "interleave": ("interleave:BANKS", lambda n, layout: Interleave(_whole("interleave", n))),
    "bit_masking": ("bit_masking", lambda _, layout: Masking(True, layout)),
    "word_masking": ("word_masking", lambda _, layout: Masking(False, layout)),
}


def parse(text: str | Iterable[str], layout: Layout | None = None) -> Protection:
    """The protection that a text names: `secded72`, `boost:0.05`, several joined with + (or several texts).

    `layout` says where the bits of a weight lie in a memory word, for those that treat bits by significance. Raises
    InputError on unknown names and wrong numbers.

    >>> parse("boost:0.05+secded72").spec
    'secded72+boost:0.05'
    >>> parse(["spare_columns:1", "bit_masking"]).words_as_stored
    False
    """
    parts = []
    for item in _items(text):
        make, argument, _ = _found(item)
        made = make(argument, layout or EIGHT_BIT)
        if not isinstance(made, Protection):
            raise InputError("protection", "name", item, "a callable that returns a sram.protection.Protection")
        parts.append(made)
    return compose(parts)


def sources(text: str | Iterable[str]) -> list[str]:
    """Paths of the Python files behind the protections that a text names; none for those that are built in."""
    return [path for item in _items(text) for path in _found(item)[2]]


def _items(text: str | Iterable[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else text
    return [piece.strip() for each in texts for piece in each.split("+")]


def _found(item: str) -> tuple[Maker, str, list[str]]:
    """(maker, its argument, files that it comes from) of one protection."""
    name, colon, argument = item.partition(":")
    if name in KINDS:
        form, make = KINDS[name]
        if bool(colon) != (":" in form):
            raise InputError("protection", "name", item, form)
        return make, argument, []
    if (found := plugins.installed(GROUP, name)) is not None:
        return found, argument, plugins.sources(found)
    if not colon:
        known = [*(form for form, _ in KINDS.values()), *plugins.names(GROUP), "package.module:callable"]
        raise InputError("protection", "name", item, ", ".join(known))
    attribute, _, argument = argument.partition(":")
    found = plugins.imported(f"{name}:{attribute}", "protection")
    return found, argument, plugins.sources(found, name)
