"""The front doors of the packages: public names are loaded when they are first used, so that an import costs nothing.

A package's stub, `__init__.pyi`, lists its public names once: for type checkers, and for `attach` (PEP 562).
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package, from the imports of the stub beside `file`.

    A name that a module of the package has as well (`simulator.energy`) stays that module; see `callable_module`.

    >>> import sram
    >>> find, names, _ = attach("sram", sram.__file__)
    >>> find("Geometry"), "generate" in names()
    (<class 'sram.geometry.Geometry'>, True)
    """
    origin: dict[str, tuple[str, str]] = {}
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            origin |= {alias.asname or alias.name: (node.module or package, alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign):  # a public name for what has another one in its module
            origin[ast.unparse(node.targets[0])] = origin[ast.unparse(node.value)]
    public = sorted(name for name in origin if not name.startswith("_"))

    def find(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = origin[name]
        if f"{package}.{name}" in (module, f"{module}.{attribute}"):
            return importlib.import_module(f"{package}.{name}")
        found = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, found)
        return found

    return find, lambda: public, public


class _CallableModule(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__[self.__name__.rpartition(".")[2]](*args, **kwargs)


def callable_module(name: str) -> None:
    """Let the module `name` be called like its function of the same name.

    Python binds an imported module in its package: a function of that name in the package's front would be lost with
    the first `import simulator.accelerator`, wherever it is. So the module itself is the public name.

    >>> import simulator
    >>> simulator.accelerator("paper").array_rows, simulator.accelerator.accelerator("paper").array_rows
    (32, 32)
    """
    sys.modules[name].__class__ = _CallableModule
