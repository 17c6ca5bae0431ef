"""Names are data: what a user calls a thing is shown letter by letter, whatever it spells in the medium."""

import re
from collections.abc import Iterable

from sram.errors import InputError

# Control characters, other ends of lines, marks that turn the direction of writing, halves of characters.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""A text in one line; what does not print as an escape.

    >>> print(printable("conv[red]:0"), printable("a\x1b[2J\nb"))
    conv[red]:0 a\x1b[2J\nb
    """
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def check_names(where: object, names: Iterable[str]) -> None:
    r"""Refuse, with InputError, a name that is not in one line or hides a character: a terminal would obey it, and
    two names that look alike would differ. Whatever a network, layer, protection, study, curve or accelerator is called
    passes here as it enters.

    >>> check_names("study", ["conv[red]:0", "слой"])
    >>> check_names("study", ["a\x1b[2J"])
    Traceback (most recent call last):
    ...
    sram.errors.InputError: study: name = 'a\x1b[2J' is not allowed; allowed: characters that print, in one line
    """
    for name in names:
        if _HIDDEN.search(name):
            raise InputError(where, "name", name[:80], "characters that print, in one line")


def plot_label(name: object) -> str:
    r"""A name as matplotlib shows it: `$` starts no formula, and a leading `_` does not hide it from the legend.

    >>> print(plot_label("resnet8"), plot_label("$\\bad$"), plot_label("_x"))
    resnet8 \$\bad\$  _x
    """
    text = printable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
