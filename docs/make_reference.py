"""Write docs/reference/keys.md and cli.md from the study's models and the command line.

python docs/make_reference.py [--check]

Types, defaults and bounds are those of the fields; what a key means is in docs/reference/meanings.yaml.
"""

import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from neuralfuse.cli import app
from neuralfuse.study.config import StudyConfig

FOLDER = Path(__file__).parent / "reference"
BOUNDS = {"ge": "{} or more", "gt": "above {}", "le": "{} at most", "lt": "below {}"}


@dataclass(frozen=True)
class Key:
    """One key of a study file."""

    name: str
    kind: Any
    default: Any  # PydanticUndefined where it is required
    bounds: tuple[Any, ...]


def keys_of(model: type) -> list[Key]:
    """Of a model or of a record of settings."""
    if issubclass(model, BaseModel):
        found = model.model_fields.items()
        return [Key(name, field.annotation, _default_of(field), tuple(field.metadata)) for name, field in found]
    hints = get_type_hints(model, include_extras=True)
    return [
        Key(f.name, hints[f.name], PydanticUndefined if f.default is MISSING else f.default, ()) for f in fields(model)
    ]


def _default_of(field: FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not None else field.default  # type: ignore[call-arg]


def models(root: type, at: str = "") -> Iterator[tuple[str, type]]:
    """(place in the file, model) of the root and all that its keys hold, in the order of the file."""
    yield at, root
    for key in keys_of(root):
        for inner in _models_in(key.kind):
            listed = "[]" if get_origin(key.kind) is tuple else ""
            yield from models(inner, f"{at}.{key.name}{listed}".lstrip("."))


def _models_in(kind: Any) -> list[type]:
    if inspect.isclass(kind) and (issubclass(kind, BaseModel) or is_dataclass(kind)):
        return [kind]
    return [found for part in get_args(kind) for found in _models_in(part)]


def takes(kind: Any, bounds: tuple[Any, ...] = ()) -> str:
    """What a key takes, in words.

    >>> takes(tuple[str, ...]), takes(Literal["a", "b"] | None), takes(Annotated[int, Ge(1)])
    ('list of text', '`a`, `b`', 'whole number, 1 or more')
    """
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part not in (type(None), Ellipsis)]
    if origin is Annotated:
        return takes(parts[0], kind.__metadata__)
    limits = [limit for item in bounds for limit in _limits(item)]
    if origin is Literal:
        said = ", ".join(f"`{part}`" for part in parts)
    elif origin is tuple:
        said = f"list of {takes(parts[0])}"
    elif origin in (Union, types.UnionType):
        said = " or ".join(takes(part) for part in parts)
    elif origin is dict or kind is Any or _models_in(kind):
        said = "keys"
    else:
        said = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}[kind]
    return ", ".join([said, *limits])


def _limits(item: Any) -> list[str]:
    """Of one annotation; a `Field` keeps its own in a list."""
    if isinstance(item, FieldInfo):
        return [limit for inner in item.metadata for limit in _limits(inner)]
    return [words.format(f"{getattr(item, name):,}") for name, words in BOUNDS.items() if hasattr(item, name)]


def default(value: Any) -> str:
    """As the study file would say it."""
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ({}, ()) or is_dataclass(value) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{getattr(entry, 'name', entry)}`" for entry in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def keys() -> str:
    """The tables of keys.md, one for each model."""
    meanings, parts = yaml.safe_load((FOLDER / "meanings.yaml").read_text()), []
    for at, model in models(StudyConfig):
        lines = [f"## {at or 'The study'}", "", "| key | takes | default | meaning |", "|---|---|---|---|"]
        for key in keys_of(model):
            if key.name not in meanings.get(at, {}):
                sys.exit(f"docs/reference/meanings.yaml: nothing on {at}.{key.name}")
            cells = f"`{key.name}`", takes(key.kind, key.bounds), default(key.default), meanings[at][key.name]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def commands(command: Any, name: str) -> Iterator[str]:
    """A section for each command, groups opened. Newer typers carry their own copy of click: no class is asked for."""
    if hasattr(command, "commands"):
        for key, each in command.commands.items():
            yield from commands(each, f"{name} {key}")
        return
    shown = [p for p in command.params if not getattr(p, "hidden", False) and "--help" not in p.opts]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    called = [p.metavar or p.name.upper() for p in arguments]
    lines = [f"## {name.removeprefix('neuralfuse ')}", "", " ".join(command.help.split()), ""]
    lines += ["```text", " ".join([name, *called, "[OPTIONS]"]), "```", "", "| | |", "|---|---|"]
    lines += [f"| {named} | {_cell(p.help)} |" for named, p in zip(called, arguments, strict=True)]
    lines += [f"| {', '.join(f'`{opt}`' for opt in p.opts)} | {_option(p)} |" for p in shown if p not in arguments]
    yield "\n".join(lines) + "\n"


def _option(option: Any) -> str:
    if option.required:
        return f"{_cell(option.help)} Required."
    plain = option.default not in (None, False, (), []) and not callable(option.default)
    return _cell(option.help) + (f" Default `{option.default}`." if plain else "")


def _cell(text: str | None) -> str:
    return " ".join((text or "").replace("|", "\\|").split())


def between_marks(page: str, made: str) -> str:
    """The page with what stands between its marks made anew."""
    return re.sub(r"(?<=<!-- made -->\n).*?(?=<!-- end -->)", lambda _: made, page, flags=re.S)


def main() -> None:
    made = {"keys.md": keys(), "cli.md": "\n".join(commands(typer.main.get_command(app), "neuralfuse"))}
    for name, text in made.items():
        path = FOLDER / name
        new = between_marks(path.read_text(), text)
        if "--check" in sys.argv[1:] and new != path.read_text():
            sys.exit(f"docs/reference/{name} is old: python docs/make_reference.py")
        path.write_text(new)


if __name__ == "__main__":
    main()
