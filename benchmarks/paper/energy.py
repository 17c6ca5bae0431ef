"""The NeuralFuse paper's energy tables beside ours: `python -m benchmarks.paper.energy` exits with 1 if one differs.

Accesses and MACs follow from the definitions of networks and array alone. The saving of the voltage is one number for
the whole table and the paper's own: it prints 30.6%, and of the 29 figures that agree with its accesses each leaves the
third digit only the room between 30.604 and 30.608. ((20/24)^2, the nearest point of its SRAM measurements, would save
30.556%: nineteen more figures would differ.) The savings by MACs follow from what is printed: 30.6%, and MACs to two
decimals of a million or, from 10^9, of a thousand million.
"""

import csv
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).parents[2] / "tests" / "data"
BASES = ("ResNet18", "ResNet50", "VGG11", "VGG16", "VGG19")
INPUT = (3, 32, 32)
SAVING_PCT = 30.606
PRINTED_SAVING_PCT = 30.6


@dataclass(frozen=True)
class Row:
    what: str
    paper: str
    ours: str
    erratum: bool = False

    @property
    def agrees(self) -> bool:
        return self.paper == self.ours


@cache
def counts() -> dict[str, tuple[float, int]]:
    """Weight-memory accesses and MACs, as the paper counts them, of its base networks and generators."""
    import torch

    from neuralfuse import networks
    from neuralfuse.transforms import generators
    from simulator.compat import paper
    from simulator.readers.read import trace

    result = {}
    with torch.device("meta"):  # shapes are all that counts here
        modules = {name: networks.build(name.lower()) for name in BASES}
        modules |= {name: generators.build(name) for name in generators.names()}
    for name, module in modules.items():
        workload = trace(module, INPUT)
        accesses = paper.weight_accesses(workload, generator=name in generators.names())
        result[name] = accesses, paper.macs(workload)
    return result


def compare() -> dict[str, list[Row]]:
    """The paper's three tables, figure by figure, each with ours to the digits that it prints."""
    found = counts()
    accesses = [
        Row(row["model"], row["weight_memory_accesses"], f"{found[row['model']][0]:.12g}")
        for row in read("paper_weight_memory_accesses.csv")
    ]
    by_accesses, by_macs = [], []
    for row in read("paper_energy_saving.csv"):
        (base, base_macs), (generator, generator_macs) = found[row["base"]], found[row["generator"]]
        what = f"{row['base']} with {row['generator']}"
        ours = f"{SAVING_PCT - 100 * generator / base:.1f}"
        by_accesses.append(Row(what, row["saving_pct"], ours, row["erratum"] == "yes"))
        ours = f"{PRINTED_SAVING_PCT - 100 * printed_mmacs(generator_macs) / printed_mmacs(base_macs):.1f}"
        by_macs.append(Row(what, row["mac_saving_pct"], ours))
    mmacs = [
        Row(row["model"], row["paper_mmacs"], f"{printed_mmacs(found[row['model']][1]):g}")
        for row in read("paper_macs.csv")
    ]
    return {
        "weight-memory accesses": accesses,
        "energy saving, %": by_accesses,
        "MACs, millions": mmacs,
        "energy saving by MACs, %": by_macs,
    }


def printed_mmacs(macs: int) -> float:
    """Millions of MACs as ptflops prints them: 557.14 MMac, 1.31 GMac."""
    return round(macs / 1e6, 2) if macs < 1e9 else 1000 * round(macs / 1e9, 2)


def read(name: str) -> list[dict[str, str]]:
    """The rows of a table of the paper."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def main() -> int:
    wrong = 0
    for title, rows in compare().items():
        print(f"\n{title:<24}{'paper':>12}{'ours':>12}")
        for row in rows:
            note = "" if row.agrees else "  erratum of the paper" if row.erratum else "  DIFFERS"
            print(f"{row.what:<24}{row.paper:>12}{row.ours:>12}{note}")
        print(f"{sum(row.agrees for row in rows)} of {len(rows)} agree")
        wrong += sum(row.agrees == row.erratum for row in rows)  # an erratum that agrees is a change, too
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
