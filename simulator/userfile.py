"""What the files that users write have in common: YAML that becomes a record, and whole numbers in cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from sram.errors import InputError

if TYPE_CHECKING:
    import pydantic

Record = TypeVar("Record")


def mapping(path: Path, of: str) -> dict[str, Any]:
    """What a YAML file says. InputError unless it is a mapping; `of` is what its keys should be."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a YAML file that can be read") from None
    except UnicodeDecodeError:
        raise InputError(path, "content", "bytes that are not UTF-8", "valid YAML") from None
    # ValueError: a number of five thousand digits, a 13th month; RecursionError: brackets in brackets in brackets
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(path, "content", " ".join(str(error).split()), "valid YAML") from None
    if not isinstance(raw, dict):
        raise InputError(path, "content", type(raw).__name__, f"a YAML mapping with {of}")
    return raw


def record(path: Path, kind: type[Record], values: dict[str, Any]) -> Record:
    """The dataclass `kind` of these values. InputError with the file, the key within it and what is allowed there."""
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_python(values)
    except pydantic.ValidationError as error:
        raise _readable(error, path, kind) from None


def whole(text: str, most: int) -> int | None:
    """The number that a cell says, if it is one from 1 to `most`.

    >>> whole("12", most=12), whole("13", most=12), whole("0", most=12), whole("1.0", most=12)
    (12, None, None, None)
    >>> "²".isdigit(), whole("²", most=12)  # what int() does not take
    (True, None)
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 20):  # nor more than 4300 digits
        return None
    number = int(text)
    return number if 1 <= number <= most else None


def _readable(error: pydantic.ValidationError, path: Path, kind: type) -> InputError:
    """The first of pydantic's complaints, in this project's words."""
    errors = error.errors()
    # a misspelt key is missing as well as unknown: the second is the one to show
    first = next((entry for entry in errors if entry["type"] == "unexpected_keyword_argument"), errors[0])
    cause = first.get("ctx", {}).get("error")
    key = ".".join(str(part) for part in first["loc"])
    if isinstance(cause, InputError):
        return InputError(path, ".".join(part for part in (key, cause.key) if part), cause.value, cause.allowed)
    if first["type"] == "unexpected_keyword_argument":
        return InputError(path, key, first["input"], ", ".join(_fields(kind, first["loc"][:-1])))
    if first["type"] == "missing":
        return InputError(path, key, None, "a value; this key is required")
    return InputError(path, key, first["input"], first["msg"])


def _fields(kind: Any, place: tuple[int | str, ...]) -> list[str]:
    """The fields of the dataclass that lies at `place` of the dataclass `kind`, in fields and in values of dicts."""
    for part in place:
        kind = get_type_hints(kind)[str(part)] if dataclasses.is_dataclass(kind) else get_args(kind)[1]
    return [item.name for item in dataclasses.fields(kind)]
