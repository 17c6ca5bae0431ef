"""Exported programs (.pt2) from files that may come from anybody: read, never unpickled."""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

from sram.errors import InputError

# What sympy may be asked to build when a program with free sizes is read.
SYMBOLIC = frozenset("Symbol Integer Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv oo int_oo true false".split())


def load_program(path: str | Path) -> torch.export.ExportedProgram:
    """An exported program from a .pt2 file that holds plain tensors only.

    torch.export.load would also unpickle objects, load compiled libraries and evaluate symbolic sizes as Python: an
    archive that asks for any of these is refused before torch sees it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            for name in names:
                _check_member(path, name, archive.read(name))
        if not any("/models/" in name for name in names):
            raise InputError(path, "content", "no model", "an archive written by torch.export.save")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(content))
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable .pt2 file") from None
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, "content", str(error), "an archive written by torch.export.save") from None
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        message = " ".join(str(error).split())[:200]
        raise InputError(path, "content", message, f"an archive that torch {torch.__version__} reads") from None


def _check_member(path: Path, name: str, content: bytes) -> None:
    inside = name.partition("/")[2]
    allowed = "tensors without pickled objects, as torch.export.save writes them for a plain module"
    if inside.startswith("data/aotinductor"):
        raise InputError(path, name, "a compiled library", allowed)
    if inside.startswith("data/sample_inputs/"):
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # whatever is wrong with it, torch.export.load would go on to unpickle it
            raise InputError(path, name, "pickled objects", allowed) from None
    elif inside.startswith(("data/weights/", "data/constants/")):
        if inside.endswith((".pt", ".pth")):
            raise InputError(path, name, "pickled tensors", allowed)
        if inside.endswith("_config.json"):
            for key, entry in json.loads(content)["config"].items():
                if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
                    raise InputError(path, f"{name}: {key}", "a pickled object", allowed)
    elif inside.startswith("models/"):
        for expression in _expressions(json.loads(content)):
            if not _is_arithmetic(expression):
                raise InputError(path, name, expression, "sizes that are plain arithmetic")


def _expressions(tree: object) -> Iterator[str]:
    """Every symbolic size of a serialised program."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "expr_str":
                yield str(value)
            yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def _is_arithmetic(expression: str) -> bool:
    """Whether a symbolic size, soon to be evaluated as Python, is made of numbers, symbols and arithmetic only."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        return False
    inert = (ast.Expression, ast.Call, ast.keyword, ast.Load, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if node.id not in SYMBOLIC and not re.fullmatch(r"[suz]\d+", node.id):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not re.fullmatch(r"\w+", node.value):
                return False
        elif not isinstance(node, inert):
            return False
    return True
