"""Write docs/api.md: every public function and class, with its signature and the first sentence of its docstring.

python docs/make_api.py [--check]
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "api.md"
PACKAGES = ("sram", "simulator", "neuralfuse")
LEFT_OUT = re.compile(r"kernels\.py$|/cli/|/_|__main__")
HEAD = """# Python API

Made from the docstrings by `python docs/make_api.py`. A docstring says more than its first sentence here: shapes,
units, errors, source, an example that runs (`help(sram.faultmap.generate)`).
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


def text() -> str:
    """The page."""
    parts = [HEAD]
    for name, tree in modules():
        public = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_") and sentence(node)
        ]
        if not public:
            continue
        parts.append(f"## {name}\n{sentence(tree)}\n")
        parts.append("\n".join(f"- `{signature(node)}`: {sentence(node)}" for node in public) + "\n")
    return "\n".join(parts)


def main() -> None:
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == text() else "docs/api.md is old: python docs/make_api.py")
    PAGE.write_text(text())


if __name__ == "__main__":
    main()
