"""Do the tests notice a wrong number? `make mutants SEED=1 N=100` changes one thing at a time in N lines of the three
packages, drawn by the seed, and runs the tests nearest to it until one fails. Cosmic-ray makes the changes and keeps
what came of each in out/mutants; a run that was ended goes on where it was, and AGAIN=1 tries what survived once more.

What survives is printed. One that changes nothing that anybody could see is listed with the reason in
tests/data/mutants_that_change_nothing.csv; any other wants a test, or code in which there is nothing to change.
Exit status 1: fewer than 95% of those that change something were caught.

As a plugin of pytest, this file ends the tests of a mutant when their time is over, or the run is.
"""

import argparse
import ast
import csv
import hashlib
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cosmic_ray.plugins
import grimp
import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem, WorkResult
from parso.python.tree import Keyword
from rich.progress import track
from scipy.stats import binomtest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sram", "simulator", "neuralfuse")
CHANGE_NOTHING = ROOT / "tests/data/mutants_that_change_nothing.csv"
# `is` for `==` changes nothing for small integers; the replacer of exceptions fails on names with a point.
LEFT_OUT = r"RemoveDecorator|ExceptionReplacer|_(?!Is)[A-Za-z]+_Is"
NEAREST = 4  # files of tests that are collected first; most mutants end there
PYTEST = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "tests.mutants", "--hypothesis-seed=0"]
# Of where a cache lies by default; here each mutant has its own.
PYTEST += ["--deselect", "tests/sram/test_cache.py::test_kernels_are_cached_beside_their_source"]


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if isinstance(item, pytest.DoctestItem) or item.path.name.startswith("test_")]
    items.sort(key=lambda item: "tiny" in getattr(item, "fixturenames", ()))  # those that need a whole study come last


def pytest_runtest_setup(item):
    if sum(os.times()[:4]) > float(os.environ.get("MUTANT_SECONDS", "inf")):  # of the processor: others may use it too
        pytest.exit("the time of this mutant is over", returncode=0)
    if not Path(f"/proc/{os.environ.get('MUTANT_PARENT', 'self')}").exists():
        pytest.exit("the run has ended")


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


class _Own(Operator):
    """A change that cosmic-ray lacks."""

    def mutation_positions(self, node):
        if self.applies(node):
            yield node.start_pos, node.end_pos

    @classmethod
    def examples(cls):
        return ()


class RemoveStatement(_Own):
    """A call, or the change of something that has a value; a first value that is missing would be noticed anyhow."""

    def applies(self, node):
        scope = parso.tree.search_ancestor(node, "funcdef") if node.type in ("expr_stmt", "atom_expr") else None
        if scope is None or node.parent.type != "simple_stmt":
            return False
        target, leaf = node.children[0], scope.get_first_leaf()
        if node.type == "atom_expr" or target.type == "atom_expr":
            return True
        while leaf and leaf.start_pos < target.start_pos:
            if leaf.value == target.get_code().strip():
                return True
            leaf = leaf.get_next_leaf()
        return False

    def mutate(self, node, index):
        return Keyword("pass", node.start_pos, node.get_first_leaf().prefix)


class ReturnNone(_Own):
    def applies(self, node):
        return node.type == "return_stmt" and node.children[1].get_code().strip() != "None"

    def mutate(self, node, index):
        node.children[1] = parso.parse(" None").children[0]
        return node


class ShiftIndex(_Own):
    def applies(self, node):
        index = node.children[1].type if node.type == "trailer" and node.children[0].value == "[" else ""
        return index in ("name", "arith_expr", "term", "atom_expr")

    def mutate(self, node, index):
        node.children[1] = parso.parse(f"{node.children[1].get_code()} + 1").children[0]
        return node


OWN = {operator.__name__: operator for operator in (RemoveStatement, ReturnNone, ShiftIndex)}
cosmic_ray.plugins.OPERATOR_PROVIDERS["own"] = OWN


def not_run(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where stand annotations, decorators and `strict=`: a type, how a function is compiled, a belt."""
    for node in ast.walk(ast.parse(source)):
        parts = [
            getattr(node, "annotation", None),
            getattr(node, "returns", None),
            *getattr(node, "decorator_list", []),
        ]
        parts += [node] if isinstance(node, ast.keyword) and node.arg == "strict" else []
        for part in filter(None, parts):
            yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def mutations_by_line(path: Path) -> dict[int, dict[str, list[MutationSpec]]]:
    """What can be changed in each line of a file, by kind of change."""
    found: dict = defaultdict(lambda: defaultdict(list))
    ignored, nodes = list(not_run(path.read_text())), list(ast_nodes(get_ast_from_path(path)))
    for name in cosmic_ray.plugins.operator_names():
        operator = cosmic_ray.plugins.get_operator(name)
        if operator.arguments() or re.search(LEFT_OUT, name):
            continue
        places = (place for node in nodes for place in operator().mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if not any(a <= start < b for a, b in ignored):
                found[start[0]][name.split("_")[0]].append(MutationSpec(path, name, occurrence, start, end))
    return found


def sample(seed: int, count: int) -> list[WorkItem]:
    """Lines drawn alike over all packages, and in each a kind of change and a place drawn alike."""
    draw = random.Random(seed)
    paths = [path for package in PACKAGES for path in sorted(Path(package).rglob("*.py"))]
    lines = [(path, line + 1) for path in paths for line in range(path.read_bytes().count(b"\n"))]
    found: dict[Path, dict] = {}
    chosen: list[WorkItem] = []
    for path, line in draw.sample(lines, len(lines)):
        if path not in found:
            found[path] = mutations_by_line(path)
        if kinds := found[path].get(line):
            chosen.append(WorkItem.single(f"{path}:{line}", draw.choice(kinds[draw.choice(sorted(kinds))])))
        if len(chosen) == count:
            break
    return chosen


class Tests:
    """Which tests to run for a mutant, by who imports what."""

    def __init__(self) -> None:
        self.graph = grimp.build_graph(*PACKAGES, "tests", cache_dir=None)
        tests = [name for name in sorted(self.graph.modules) if name.rsplit(".", 1)[-1].startswith("test_")]
        # Pages follow signatures and docstrings: they would notice a changed default, and not whether it is right.
        self.tests = [
            name for name in tests if not name.startswith(("tests.docs", "tests.benchmarks", "tests.test_dist"))
        ]

    def distance(self, importer: str, imported: str) -> int:
        return len(self.graph.find_shortest_chain(importer, imported) or range(9))

    def nearest_first(self, module: str) -> list[str]:
        """Own examples first, then the tests that mirror the module, its package, and import it by the shortest way."""
        package, (room, _, name) = module.split(".")[0], module.rpartition(".")

        def near(test: str) -> tuple:
            mirrors = name.removesuffix("_kernels") in test.rsplit(".", 1)[-1]
            same = [test.startswith(f"tests.{part}.") for part in (package, room, module)]
            return self.distance(test, module) - 2 * (mirrors and same[0]) - sum(same), test

        return [f"{name.replace('.', '/')}.py" for name in sorted(self.tests, key=near)]

    def compiled(self, module: str) -> bool:
        """Whether compiled loops hold this module: numba looks at the file of a loop, and not at what it calls."""
        kernels = [name for name in self.graph.modules if name.endswith("kernels")]
        return any(name == module or self.distance(name, module) < 9 for name in kernels)


def copy_tree(to: Path) -> None:
    """The files of this checkout as they are now; git knows which."""
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def changed(result: WorkResult) -> tuple[str, str]:
    """The line before and after."""
    lines = [line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return tuple(" / ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")  # type: ignore[return-value]


def fresh_caches(scratch: Path, compiled: bool) -> None:
    """Nothing that the last mutant left: curves, examples of hypothesis, and compiled loops where they are changed."""
    shutil.rmtree(scratch / "fresh", ignore_errors=True)
    fresh = {"XDG_CACHE_HOME": "cache", "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis"}
    os.environ |= {key: str(scratch / "fresh" / name) for key, name in fresh.items()}
    os.environ["NUMBA_CACHE_DIR"] = str(scratch / ("fresh/numba" if compiled else "numba"))


def attempt(item: WorkItem, tests: Tests, scratch: Path, seconds: float) -> WorkResult:
    """Change it, and run the nearest tests, then the others until the time is over."""
    path = item.mutations[0].module_path
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    files = tests.nearest_first(module)
    first, others = [str(path), *files[:NEAREST]], files[NEAREST:]
    fresh_caches(scratch, compiled=tests.compiled(module))
    os.environ |= {"MUTANT_SECONDS": str(seconds), "MUTANT_PARENT": str(os.getpid())}
    both = f"{shlex.join([*PYTEST, *first])} && {shlex.join([*PYTEST, *others])}"
    return mutate_and_test(item.mutations, shlex.join(["sh", "-c", both]), 15 * seconds)


def caught_by(result: WorkResult) -> list[str]:
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", result.output or "", re.M)


def report(db: WorkDB, scratch: Path) -> bool:
    """What came of the mutants; whether enough of those that change something were caught."""
    results = dict(db.results)
    killers = {job: caught_by(result) for job, result in results.items() if result.is_killed}
    names = sorted({name for found in killers.values() for name in found})
    fresh_caches(scratch, compiled=False)
    os.environ.pop("MUTANT_SECONDS", None)
    clean = subprocess.run([arg for arg in PYTEST if arg != "-x"] + names, capture_output=True, text=True, check=False)
    broken = {
        name
        for name in names
        if clean.returncode and re.search(rf"^(FAILED|ERROR) {re.escape(name)}", clean.stdout, re.M)
    }
    for name in broken:
        print(f"{name} fails without a mutant too: what it alone caught does not count")
    with open(CHANGE_NOTHING, newline="") as file:
        nothing = {(row["module"], row["before"], row["after"]) for row in csv.DictReader(file)}
    caught = survived = equal = 0
    for item in db.work_items:
        result, mutation = results[item.job_id], item.mutations[0]
        before, after = changed(result)
        line = f"{mutation.module_path}:{mutation.start_pos[0]}\n    - {before}\n    + {after}"
        if result.is_killed and not broken.issuperset(killers[item.job_id] or [""]):
            caught += 1
            if not killers[item.job_id]:
                print(f"caught without a test that failed (a crash, or no end): {line}\n{(result.output or '')[-300:]}")
        elif (str(mutation.module_path), before, after) in nothing:
            equal += 1
        else:
            survived += 1
            print(f"survived: {line}")
    if not caught + survived:
        return True
    share = binomtest(caught, caught + survived)
    low, high = share.proportion_ci()
    print(f"{caught} of {caught + survived} that change something were caught, {equal} more change nothing")
    print(f"{share.statistic:.0%}, 95% interval {low:.0%} to {high:.0%} (exact, binomial)")
    return share.statistic >= 0.95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="draws the mutants")
    parser.add_argument("-n", type=int, default=100, help="how many")
    parser.add_argument(
        "--seconds", type=float, default=120, help="of the processor, after which no test of a mutant begins"
    )
    parser.add_argument("--again", action="store_true", help="try what survived again, after writing a test")
    arguments = parser.parse_args()
    sources = b"".join(path.read_bytes() for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))
    key = (
        f"{arguments.seed}-{arguments.n}-{hashlib.sha256(sources).hexdigest()[:8]}"  # a changed package is another run
    )
    scratch = ROOT / "out/mutants" / key
    copy_tree(scratch / "tree")
    os.chdir(scratch / "tree")
    sys.path.insert(0, str(scratch / "tree"))
    os.environ |= {"PYTHONPATH": str(scratch / "tree"), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    db = WorkDB(scratch / "session.sqlite", WorkDB.Mode.create)
    if not db.num_work_items:
        db.add_work_items(sample(arguments.seed, arguments.n))
    done = {job for job, result in db.results if not (arguments.again and result.test_outcome == TestOutcome.SURVIVED)}
    tests = Tests()
    for item in track([item for item in db.work_items if item.job_id not in done], f"mutants in {scratch}"):
        db.set_result(item.job_id, attempt(item, tests, scratch, arguments.seconds))
    sys.exit(not report(db, scratch))


if __name__ == "__main__":
    main()
