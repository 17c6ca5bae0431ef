"""Write docs/reference/api.md: the front doors with signatures and methods, and what each module holds.

python docs/make_api.py [--check]
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "api.md"
PACKAGES = ("sram", "simulator", "neuralfuse")
LEFT_OUT = re.compile(r"kernels\.py$|/cli/|/_|__main__")
HEAD = """# Which functions are there?

**Start at the front doors: `import neuralfuse as nf`, `import simulator`, `import sram`. Their names are a contract.**
Below them, what each module holds. `help(...)` says more: shapes, units, errors, source, an example that runs. Made
from the docstrings by `python docs/make_api.py`.
"""


def sentence(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    """The first sentence of a docstring, in one line; empty without one."""
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9)`][.;])\s(?=[A-Z])", paragraph)[0]


def signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    """`name(arguments) -> result`, without annotations where the whole would be long; fields of a dataclass."""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        whole = f"{node.name}({ast.unparse(node.args)}){result}"
        if len(whole) <= 160:
            return whole
        for argument in (*node.args.args, *node.args.kwonlyargs):
            argument.annotation = None
        return f"{node.name}({ast.unparse(node.args)}){result}"
    constructor = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
    if constructor:
        names = [argument.arg for argument in constructor.args.args[1:]]
    elif any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
        names = [f.target.id for f in fields if not f.target.id.startswith("_")]  # type: ignore[union-attr]
    else:
        return node.name
    return f"{node.name}({', '.join(names)})"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and tree of each public module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not LEFT_OUT.search(name.replace("__init__.py", "init.py")):
                yield name.removesuffix(".py").removesuffix("/__init__").replace("/", "."), ast.parse(path.read_text())


def public(tree: ast.Module) -> list[ast.ClassDef | ast.FunctionDef]:
    """Functions and classes that a docstring speaks for."""
    kinds = ast.ClassDef | ast.FunctionDef
    return [node for node in tree.body if isinstance(node, kinds) and node.name[0] != "_" and sentence(node)]


def doors(package: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what a package names itself: the imports of its `__init__.pyi`."""
    stub = ROOT / package / "__init__.pyi"
    for node in ast.parse(stub.read_text()).body if stub.exists() else []:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def entry(node: ast.ClassDef | ast.FunctionDef) -> str:
    """Signature and sentence; of a class its public methods and properties, too."""
    lines = [f"- `{signature(node)}`: {sentence(node)}"]
    for inner in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_" and sentence(inner):
            inner.args.args = inner.args.args[1:] if inner.args.args[:1] else []
            is_property = any("property" in ast.unparse(decorator) for decorator in inner.decorator_list)
            lines.append(f"  - `.{inner.name if is_property else signature(inner)}`: {sentence(inner)}")
    return "\n".join(lines)


def text() -> str:
    """The page."""
    trees = dict(modules())
    names = {(module, node.name): node for module, tree in trees.items() for node in public(tree)}
    parts = [HEAD]
    for package in PACKAGES[::-1]:
        parts.append(f"## {package}\n{sentence(trees[package])}\n")
        named = [entry(names[door]) for door in doors(package) if door in names]
        parts += ["\n".join(named) + "\n"] if named else []
    for package in PACKAGES[::-1]:
        parts.append(f"## Modules of {package}\n")
        lines = []
        for module, tree in trees.items():
            if module.split(".")[0] == package and (inside := public(tree)):
                lines.append(f"- `{module}`: {sentence(tree)} {', '.join(f'`{node.name}`' for node in inside)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == text() else "docs/reference/api.md is old: python docs/make_api.py")
    PAGE.write_text(text())


if __name__ == "__main__":
    main()
