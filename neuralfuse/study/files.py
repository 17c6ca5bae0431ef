"""Studies read from YAML files and written to them; every mistake names its key."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from neuralfuse.study.config import StudyConfig
from neuralfuse.study.strict import one_of
from simulator import userfile
from sram import plugins
from sram.errors import InputError


def parse_study(data: object, where: str) -> StudyConfig:
    """Check a mapping; the first mistake becomes an InputError that names its key.

    >>> parse_study({"name": "x", "networks": [{"name": "n"}], "voltages": []}, "study.yaml")
    Traceback (most recent call last):
    ...
    sram.errors.InputError: study.yaml: voltages = [] is not allowed; allowed: at least one entry
    """
    if not isinstance(data, dict):
        raise InputError(where, "study", type(data).__name__, "a mapping of keys to values")
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        # a misspelt key is missing as well as unknown: the second is the one to show
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        path = _named(data, first["loc"])
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # of a key further in than the model that was being read
            raise InputError(where, ".".join([*path, cause.key]), cause.value, cause.allowed) from None
        key = ".".join(path) or "study"
        if first["type"] == "extra_forbidden":
            allowed = one_of(path[-1], _keys_beside(first["loc"]))
            raise InputError(where, key, first["input"], allowed) from None
        if first["type"] == "missing":
            raise InputError(where, key, None, "this key is required") from None
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(where, key, first["input"], message) from None


def Study(name: str, **keys: Any) -> StudyConfig:
    """A study from Python: the keys of a study file, checked like those of a file.

    >>> study = Study("mine", networks=["resnet8"], voltages=[1.0, 0.8], protections=["none", "secded72"])
    >>> study.chips.evaluation, [protection.name for protection in study.protections]
    (20, ['none', 'secded72'])
    >>> Study("mine", networks=["resnet8"], voltage=[1.0])
    Traceback (most recent call last):
    ...
    sram.errors.InputError: study: voltage = [1.0] is not allowed; allowed: voltages, or another of the keys ...
    """
    return parse_study({"name": name, **keys}, "study")


def _named(data: Any, path: Iterable[int | str]) -> list[str]:
    """The keys to a place in a study, entries of lists by their names where they have one.

    >>> _named({"networks": [{"name": "n", "bits": 9}]}, ("networks", 0, "bits"))
    ['networks', 'n', 'bits']
    """
    names = []
    for part in path:
        at = isinstance(data, list) and isinstance(part, int)
        data = data[part] if at else data.get(part) if isinstance(data, dict) else None
        names.append(str(data["name"] if at and isinstance(data, dict) and "name" in data else part))
    return names


def _keys_beside(path: Sequence[int | str]) -> list[str]:
    """Field names of the model that `path` points into."""
    model: type[BaseModel] = StudyConfig
    for part in path[:-1]:
        if part not in model.model_fields:
            continue
        model = _model_in(model.model_fields[part].annotation) or model
    return sorted(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None


def load_study(path: str | Path) -> StudyConfig:
    """Read a study file (YAML) without variants."""
    return parse_study(_read(Path(path)), str(path))


def load_studies(path: str | Path) -> dict[str, StudyConfig]:
    """Read a study file: its variants by name, or the one study under the name "".

    A variant is the study with some keys replaced: other data, another failure curve with voltages in its unit, ...
    Mappings are merged key by key; anything else, lists too, is replaced whole.
    """
    path = Path(path)
    data = _read(path)
    if not isinstance(data, dict) or "variants" not in data:
        return {"": parse_study(data, str(path))}
    base = {key: value for key, value in data.items() if key != "variants"}
    variants = data["variants"]
    if not isinstance(variants, dict) or not variants:
        raise InputError(path, "variants", variants, "a mapping of names to the keys that differ")
    studies = {}
    for name, changes in variants.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", str(name)):
            raise InputError(path, "variants", name, "names of letters, digits, and _ . + -, for each becomes a folder")
        if not isinstance(changes or {}, dict):
            raise InputError(path, f"variants.{name}", changes, "a mapping of the keys that differ")
        merged = _merged(base, {"name": f"{base.get('name')}: {name}", **(changes or {})})
        studies[str(name)] = parse_study(merged, f"{path} (variant {name})")
    return studies


def _merged(base: dict, changes: dict) -> dict:
    """`base` with `changes` in it, key by key.

    >>> _merged({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2]})
    {'a': {'x': 1, 'y': 3}, 'b': [2]}
    """
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return out


def _read(path: Path) -> object:
    if not path.is_file():
        raise InputError(path, "study", str(path), "an existing YAML file")
    plugins.allow_folder(path.parent)  # what lies beside a study is part of it
    return userfile.read(path)


def dump_study(study: StudyConfig) -> str:
    """The study as YAML with every default written out."""
    return userfile.text(study.model_dump(mode="json"))
