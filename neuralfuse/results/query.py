"""Rows of a table that a text asks for: `voltage < 0.85 and network == "resnet8"`. Read as data, never run as code."""

import ast
import operator
from collections.abc import Callable
from typing import Any

import pandas as pd

from sram.errors import InputError

MOST = 1000  # characters
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda column, listed: column.isin(listed),
    ast.NotIn: lambda column, listed: ~column.isin(listed),
}
ALLOWED = "comparisons of columns with numbers, texts in quotes or lists (in, not in), joined by and, or, not"


class _Other(Exception):
    """Something else than comparisons."""


def rows(table: pd.DataFrame, text: str, where: object = "results") -> pd.DataFrame:
    """The rows of which a text is true.

    The text has comparisons (`<`, `<=`, `==`, `!=`, `in`, `not in`, also chained) of columns with each other or with
    numbers, texts in quotes, `True`, `False`, lists of them; `and`, `or`, `not`; parentheses. Raises InputError.

    >>> table = pd.DataFrame({"voltage": [1.0, 0.9, 0.8], "network": ["a", "b", "a"]})
    >>> rows(table, "0.8 <= voltage < 1 and network in ['a', 'c']").voltage.tolist()
    [0.8]
    >>> rows(table, "@pd.read_pickle('x')")
    Traceback (most recent call last):
    ...
    sram.errors.InputError: results: --query = "@pd.read_pickle('x')" is not allowed; allowed: comparisons ...
    """
    try:
        if len(text) > MOST:
            raise _Other(f"{len(text)} characters, more than {MOST}")
        return table[_mask(table, ast.parse(text.strip(), mode="eval").body)]
    except (_Other, SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        allowed = f"{ALLOWED} ({reason}); columns are {', '.join(table.columns)}"
        raise InputError(where, "--query", text[:MOST], allowed) from None


def _mask(table: pd.DataFrame, node: ast.expr) -> pd.Series:
    """What an expression says of each row."""
    if isinstance(node, ast.BoolOp):
        joined = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        found = [_mask(table, value) for value in node.values]
        for other in found[1:]:
            found[0] = joined(found[0], other)
        return found[0]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):  # as pandas' users write it
        joined = operator.and_ if isinstance(node.op, ast.BitAnd) else operator.or_
        return joined(_mask(table, node.left), _mask(table, node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        return ~_mask(table, node.operand)
    if isinstance(node, ast.Compare):
        found = pd.Series(True, table.index)
        left = node.left
        for kind, right in zip(node.ops, node.comparators, strict=True):
            found &= _compared(table, left, kind, right)
            left = right
        return found
    if isinstance(node, ast.Name) and node.id in table and table[node.id].dtype == bool:
        return table[node.id]
    raise _Other(f"{ast.unparse(node)[:80]!r} is none")


def _compared(table: pd.DataFrame, left: ast.expr, kind: ast.cmpop, right: ast.expr) -> pd.Series | bool:
    one, other = _value(table, left), _value(table, right)
    listed = isinstance(kind, ast.In | ast.NotIn)
    if type(kind) not in COMPARED or isinstance(one, list) or isinstance(other, list) != listed:
        raise _Other("a list stands behind in or not in")
    if listed and not isinstance(one, pd.Series):
        raise _Other("a column stands before in or not in")
    return COMPARED[type(kind)](one, other)


def _value(table: pd.DataFrame, node: ast.expr) -> Any:
    """A column, or what is written as a number, text or list."""
    if isinstance(node, ast.Name):
        if node.id not in table:
            raise _Other(f"no column {node.id}")
        return table[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return -_number(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        if any(isinstance(entry, ast.Name | ast.List | ast.Tuple) for entry in node.elts):
            raise _Other("lists are of numbers and texts")
        return [_value(table, entry) for entry in node.elts]
    raise _Other(f"{ast.unparse(node)[:80]!r} is neither a column nor a number nor a text")


def _number(node: ast.Constant) -> int | float:
    if not isinstance(node.value, int | float):
        raise _Other(f"-{node.value!r}")
    return node.value
