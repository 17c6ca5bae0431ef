"""Names of networks, protections and all else as names of files: two that differ never share one, and none leads out of
its folder."""

import re
from collections.abc import Sequence

from neuralfuse.study.digest import digest

LONGEST = 200  # characters; file systems take 255 bytes, and a suffix follows
# Hidden, empty, ends that Windows drops, and what it takes for devices.
_UNFIT = re.compile(r"\..*|.*\.|()|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def slug(*names: str) -> str:
    """Names joined to a file's; where other names would give the same, or none is allowed, with a digest.

    >>> slug("resnet18-imagenet"), slug("w<4"), slug("w>4")
    ('resnet18-imagenet', 'w_4~25707f5f', 'w_4~838139d2')
    >>> slug("resnet18", "paper"), slug(".."), slug("a/../../x")
    ('resnet18-paper', '_..~5bd4aa19', 'a_.._.._x~a229fea8')
    """
    return _file_name("-".join(names), names, any("-" in name for name in names[1:]))  # a and b-c, or a-b and c


def _file_name(joined: str, names: Sequence[str], joined_otherwise: bool = False) -> str:
    """`names` joined to one; `joined_otherwise`: if other names give the same."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", joined)[:LONGEST]
    if _UNFIT.fullmatch(plain):
        plain = f"_{plain}"
    return plain if plain == joined and not joined_otherwise else f"{plain}~{digest(list(names))[:8]}"


def generator_file(trained_on: Sequence[str], name: str) -> str:
    """What the generator of protection `name`, trained before these networks, is called in its folder.

    >>> generator_file(["resnet18"], "ConvS"), generator_file(["resnet18"], "ConvL/2")
    ('resnet18-ConvS.safetensors', 'resnet18-ConvL_2~4d026b46.safetensors')
    """
    joined_otherwise = "-" in name or any("+" in one for one in trained_on)  # a and b-c, or a-b and c; a+b, or a and b
    return _file_name(f"{'+'.join(trained_on)}-{name}", [*trained_on, name], joined_otherwise) + ".safetensors"
