"""Names of networks and protections as names of files: two that differ never share one."""

import re
from collections.abc import Sequence

from neuralfuse.study.digest import digest


def slug(name: str) -> str:
    """A name as a file's; where other names would give the same, with a digest.

    >>> slug("resnet18-imagenet"), slug("w<4"), slug("w>4")
    ('resnet18-imagenet', 'w_4~25707f5f', 'w_4~838139d2')
    """
    return _file_name(name, [name])


def _file_name(joined: str, names: list[str], joined_otherwise: bool = False) -> str:
    """`names` joined to one; `joined_otherwise`: if other names give the same."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", joined)
    return plain if plain == joined and not joined_otherwise else f"{plain}~{digest(names)[:8]}"


def generator_file(trained_on: Sequence[str], name: str) -> str:
    """What the generator of protection `name`, trained before these networks, is called in its folder.

    >>> generator_file(["resnet18"], "ConvS"), generator_file(["resnet18"], "ConvL/2")
    ('resnet18-ConvS.safetensors', 'resnet18-ConvL_2~4d026b46.safetensors')
    """
    joined_otherwise = "-" in name or any("+" in one for one in trained_on)  # a and b-c, or a-b and c; a+b, or a and b
    return _file_name(f"{'+'.join(trained_on)}-{name}", [*trained_on, name], joined_otherwise) + ".safetensors"
