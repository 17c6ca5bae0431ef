"""What the files that users write have in common: YAML that means what it says, and whole numbers in cells.

YAML here is plain data in which a key stands once and a word is what it looks like; aliases and merges (`<<`) may stand
for so much and no more. YAML 1.1
reads `yes` as true, `1:20` as 80 and `010` as 8; those are refused, with the line that they stand in.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from sram.errors import InputError

if TYPE_CHECKING:
    import pydantic

Record = TypeVar("Record")


MOST_BYTES, MOST_DEPTH, MOST_WORDS = 2**20, 50, 2**17  # of a file, of brackets in brackets, with aliases written out
TAG = "tag:yaml.org,2002:"
_PLAIN = {
    "bool": re.compile("true|false", re.IGNORECASE),
    "int": re.compile(r"[-+]?(0|[1-9]\d*)"),
    "float": re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE),
}


def read(path: Path) -> Any:
    """What a YAML file says, as plain data. InputError for what is no YAML, or may not mean what it looks like."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a YAML file that can be read") from None
    if len(content) > MOST_BYTES:
        raise InputError(path, "content", f"more than {MOST_BYTES} bytes", f"at most {MOST_BYTES} bytes of YAML")
    try:
        return parse(content.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise InputError(path, "content", "bytes that are not UTF-8", "valid YAML") from None


def parse(text: str, where: object) -> Any:
    r"""`read` of a text.

    >>> parse("a: [1, 2.5, true, x]", "here")
    {'a': [1, 2.5, True, 'x']}
    >>> parse("a: 1\na: 2", "here")
    Traceback (most recent call last):
    ...
    sram.errors.InputError: here: content (line 2) = 'a' is not allowed; allowed: each key once
    """
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    # ValueError: a character that YAML does not know; RecursionError: brackets in brackets in brackets
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(where, "content", " ".join(str(error).split())[:200], "valid YAML") from None
    return None if node is None else _data(node, where, (), itertools.count(1))


def text(value: Any, **style: Any) -> str:
    """YAML that `parse` reads back as this very value, in a `style` of PyYAML: texts that spell a number are quoted,
    also where YAML 1.1 would not.

    >>> print(text({"name": "1e3", "rate": 1e-3}), end="")
    name: '1e3'
    rate: 0.001
    """
    import yaml

    class Quoting(yaml.SafeDumper):
        pass

    def quoted(dumper: yaml.SafeDumper, found: str) -> yaml.ScalarNode:
        return dumper.represent_scalar(f"{TAG}str", found, style="'" if _PLAIN["float"].fullmatch(found) else None)

    Quoting.add_representer(str, quoted)
    return yaml.dump(value, Dumper=Quoting, sort_keys=False, allow_unicode=True, **style)


def _data(node: Any, where: object, place: tuple[str, ...], words: Iterator[int]) -> Any:
    """A node of YAML as plain data; `place` are the keys on the way to it, `words` counts what was read."""
    import yaml

    kind = node.tag.removeprefix(TAG)
    if len(place) > MOST_DEPTH:
        raise InputError(where, f"line {node.start_mark.line + 1}", f"{len(place)} levels", f"at most {MOST_DEPTH}")
    if next(words) > MOST_WORDS:  # a few hundred bytes of aliases can stand for gigabytes
        raise InputError(where, "content", f"more than {MOST_WORDS} words", "less, with aliases written out")
    if isinstance(node, yaml.ScalarNode):
        if kind == "str" and not node.style and _PLAIN["float"].fullmatch(node.value):
            kind = "float"  # 1e-3, which YAML 1.1 takes for a text
        try:
            return _word(node.value, kind)
        except ValueError as error:
            raise _refused(where, place, node, node.value[:40], str(error)) from None
    if kind == "seq":
        return [_data(entry, where, (*place, str(i)), words) for i, entry in enumerate(node.value)]
    if kind != "map":
        raise _refused(where, place, node, node.tag[:40], "plain lists and mappings")
    return _mapping(node, where, place, words)


def _mapping(node: Any, where: object, place: tuple[str, ...], words: Iterator[int]) -> dict[str, Any]:
    """A mapping, each of whose own keys stands once; keys that it merges (`<<`) stand behind its own."""
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == f"{TAG}merge":
            parts = _data(value, where, place, words)
            for part in parts if isinstance(parts, list) else [parts]:
                if not isinstance(part, dict):
                    raise _refused(where, place, key, "<<", "a mapping, or a list of mappings")
                merged = part | merged
            continue
        name = _data(key, where, place, words)
        if not isinstance(name, str):
            raise _refused(where, place, key, str(name)[:40], "a text as key")
        if name in found:
            raise _refused(where, place, key, name[:40], "each key once")
        found[name] = _data(value, where, (*place, name[:40]), words)
    return merged | found


def _refused(where: object, place: tuple[str, ...], node: Any, value: object, allowed: str) -> InputError:
    return InputError(where, f"{'.'.join(place) or 'content'} (line {node.start_mark.line + 1})", value, allowed)


def _word(text: str, kind: str) -> str | bool | int | float | None:
    """A word as what YAML takes it for, if that is what it looks like; else ValueError says what is allowed."""
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind not in _PLAIN:
        raise ValueError("quotes around it")
    if len(text) > 40 or not _PLAIN[kind].fullmatch(text):
        plain = "true or false" if kind == "bool" else "a finite number in plain decimals"
        raise ValueError(f"{plain}, or quotes around it")
    if kind == "bool":
        return text.lower() == "true"
    number = int(text) if kind == "int" else float(text)
    if not abs(number) < 2**63:
        raise ValueError("a number below 2^63")
    return number


def mapping(path: Path, of: str) -> dict[str, Any]:
    """What a YAML file says. InputError unless it is a mapping; `of` is what its keys should be."""
    raw = read(path)
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


def presets(folder: Path) -> list[str]:
    """Names of the files that come with the package."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def named(folder: Path, name_or_path: str | Path, kind: type[Record], what: str) -> Record:
    """A preset of a folder by name, or the `kind` in another YAML file, whose keys are its fields; named as the file is
    where it does not say. InputError for what is neither; `what` it is."""
    path = Path(name_or_path)
    if str(name_or_path) in presets(folder):
        path = folder / f"{name_or_path}.yaml"
    elif not path.is_file():
        raise InputError(what, "name", str(name_or_path), ", ".join(presets(folder)) + ", or a YAML file")
    return record(path, kind, {"name": path.stem} | mapping(path, f"the fields of {kind.__name__}"))


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
        if isinstance(kind, types.UnionType):  # a record, or None
            kind = get_args(kind)[0]
    return [item.name for item in dataclasses.fields(kind)]
