"""What the groups of keys of a study have in common: how they are read, and what is hashed of them."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

Hash = Literal["row", "folder", "weights"]  # of what a row, a folder's results, trained weights follow from


@dataclass(frozen=True)
class Unhashed:
    """Said of a key at its field: this hash leaves it out, for what it stands for does not follow it, or names it
    apart."""

    hash: Hash


class Strict(BaseModel):
    """A group of keys of a study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def numbers_are_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic would take `true` for 1, and a text for the number that it looks like."""
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        for part in _leaves(value):
            if kinds & {int, float} and isinstance(part, bool | str) and type(part) not in kinds:
                raise ValueError(f"a number, not {part!r}")
        return value

    def given(self, of: Hash = "row") -> dict[str, Any]:
        """What is hashed of it: the keys that are not as their defaults, but for those that this hash leaves out.

        A key that comes later, with a default that changes no result, leaves the rows of studies without it theirs.
        """
        return self.model_dump(mode="json", exclude=self.left_out(of), exclude_defaults=True)

    def left_out(self, of: Hash) -> set[str]:
        """Keys that this hash leaves out."""
        return {name for name, field in type(self).model_fields.items() if Unhashed(of) in field.metadata}


def each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names; ValueError where one is there twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"each entry once, {twice[0]} too")
    return names


def one_of(name: str, known: list[str], kind: str = "keys") -> str:
    """What may stand in place of `name`, the name that was probably meant first.

    >>> one_of("protection", ["chips", "protections"]), one_of("x", ["chips"])
    ('protections, or another of the keys chips', 'only the keys chips')
    """
    meant = difflib.get_close_matches(name, known, 1)
    others = ", ".join(key for key in known if key not in meant)
    if meant:
        return f"{meant[0]}, or another of the {kind} {others}" if others else meant[0]
    return f"only the {kind} {others}"


def _leaves(value: object) -> Iterator[object]:
    """What stands in lists and mappings, however deep."""
    if isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _kinds(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)
