"""Exported programs (.pt2) from files that may come from anybody: read, never unpickled."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

import torch

from sram import archive
from sram.errors import InputError

MOST_GRAPH, MOST_EXPRESSION, MOST_POWERS = 2**25, 2000, 4  # bytes, characters, and powers in a size
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
        with archive.checked(content) as members:
            names = members.namelist()
            for name in names:
                _check_member(path, name, members.read(name))
        if not any("/models/" in name for name in names):
            raise InputError(path, "content", "no model", "an archive written by torch.export.save")
        with warnings.catch_warnings(), _silent(torch.export.__name__):
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(content))
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable .pt2 file") from None
    except (zipfile.BadZipFile, zlib.error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, "content", str(error), "an archive written by torch.export.save") from None
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError, AttributeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        message = " ".join(str(error).split())[:200]
        raise InputError(path, "content", message, f"an archive that torch {torch.__version__} reads") from None


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Inside the block it logs nothing: torch would print the traceback of an error that it raises as well."""
    found = logging.getLogger(logger)
    before, found.disabled = found.disabled, True
    try:
        yield
    finally:
        found.disabled = before


def _check_member(path: Path, name: str, content: bytes) -> None:
    inside = name.partition("/")[2]
    allowed = "tensors without pickled objects, as torch.export.save writes them for a plain module"
    if inside.startswith("data/aotinductor"):
        raise InputError(path, name, "a compiled library", allowed)
    if inside.endswith(".json") and len(content) > MOST_GRAPH:
        raise InputError(path, name, f"{len(content)} bytes", f"at most {MOST_GRAPH} bytes of JSON")
    if inside.startswith("data/sample_inputs/"):
        if content.startswith(b"PK"):
            archive.checked(content).close()
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # whatever is wrong with it, torch.export.load would go on to unpickle it
            raise InputError(path, name, "pickled objects", allowed) from None
    elif inside.startswith(("data/weights/", "data/constants/")):
        pickled = "pickled tensors" if inside.endswith((".pt", ".pth")) else _pickled_entry(inside, content)
        if pickled:
            raise InputError(path, name, pickled, allowed)
    elif inside.startswith("models/"):
        for expression in _expressions(json.loads(content)):
            if not _is_arithmetic(expression):
                raise InputError(path, name, expression, "sizes that are plain arithmetic")


def _pickled_entry(inside: str, content: bytes) -> str | None:
    """The first entry of a table of tensors that would have to be unpickled."""
    entries = json.loads(content)["config"].items() if inside.endswith("_config.json") else ()
    for key, entry in entries:
        if entry["use_pickle"] or not entry["path_name"].startswith(("weight_", "tensor_")):
            return f"{key}: a pickled object"
    return None


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
    if len(expression) > MOST_EXPRESSION:
        return False
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    inert = (ast.Expression, ast.Call, ast.keyword, ast.Load, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop)
    powers = [node for node in ast.walk(tree) if _is_call(node, "Pow")]
    if len(powers) > MOST_POWERS or not all(_is_small(node.args[1:]) for node in powers):
        return False  # a few powers of powers are more digits than a memory holds
    for node in ast.walk(tree):
        if isinstance(node, ast.Pow | ast.LShift):
            return False
        if isinstance(node, ast.Name):
            if node.id not in SYMBOLIC and not re.fullmatch(r"[suz]\d+", node.id):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not re.fullmatch(r"\w+", node.value):
                return False
        elif not isinstance(node, inert):
            return False
    return True


def _is_call(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _is_small(arguments: list[ast.expr]) -> bool:
    """Whether these are one exponent between -8 and 8, as sympy or Python writes it."""
    if len(arguments) != 1:
        return False
    exponent = arguments[0]
    if _is_call(exponent, "Integer") and len(exponent.args) == 1:
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    return isinstance(exponent, ast.Constant) and isinstance(exponent.value, int) and exponent.value <= 8
