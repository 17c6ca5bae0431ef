"""Two chips whose energy an inference is published, beside what this simulator says of them.

    python -m benchmarks.silicon            # the table in benchmarks/results/silicon.txt

MLPerf Tiny's networks on GAP9 and NDP120 (v1.0 results, tests/data/silicon_mlperf_tiny.csv), each at two supplies and
clocks. A preset like each chip guesses its array and memories (simulator/presets). One number is fitted, to one network
at one point: image classification at the higher supply. All else is predicted:

    energy = (counted dynamic energy + fitted energy of a cycle x (V / V of the fit)^2 x cycles) + leakage x seconds

The fitted number stands for what is not counted: clock tree, control, cores, regulators. Cycles, accesses and leakage
are the simulator's, BatchNorm folded, weights resident, at the scope `chip`. Beside it, what one factor on the counted
dynamic energy would say instead.

An error comes of time and of power: how far the seconds of a network, over those of the fitted one, differ from the
measured ratio, and what is left of the error then.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from simulator.accelerator import accelerator
from simulator.array.cycles import Counts, simulate
from simulator.energy import LayerEnergy, energy
from simulator.operating_point import OperatingPoint, Supply

DATA = Path(__file__).parents[1] / "tests" / "data" / "silicon_mlperf_tiny.csv"
FITTED = "ic"
LEAKAGE = ("sram_leakage", "logic_leakage")


@dataclass(frozen=True)
class Measured:
    preset: str
    network: str
    volts: float
    clock_mhz: float
    energy_uj: float
    inferences_per_s: float


@dataclass(frozen=True)
class Predicted:
    """Errors are relative: predicted / measured - 1."""

    measured: Measured
    energy_uj: float
    scaled_uj: float  # with one factor on all that is counted
    time_error: float  # of the seconds over those of the fitted network at the supply of the fit

    @property
    def error(self) -> float:
        return self.energy_uj / self.measured.energy_uj - 1

    @property
    def scaled_error(self) -> float:
        return self.scaled_uj / self.measured.energy_uj - 1

    @property
    def power_error(self) -> float:
        return (1 + self.error) / (1 + self.time_error) - 1


def measured(preset: str) -> list[Measured]:
    """Of a chip, the higher supply first."""
    with DATA.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["preset"] == preset]
    keys = ("volts", "clock_mhz", "energy_uj", "inferences_per_s")
    return [Measured(preset, row["network"], *(float(row[key]) for key in keys)) for row in rows]


@cache
def counts(preset: str, network: str) -> Counts:
    from neuralfuse import networks
    from neuralfuse.quantized.fold import fold_normalisation
    from simulator.readers.read import trace

    name = f"mlperf-tiny-{network}"
    module = networks.build(name).eval()
    fold_normalisation(module)
    return simulate(trace(module, networks.MLPERF_TINY[name][0]), accelerator(preset))


def spent(row: Measured) -> LayerEnergy:
    """At the supply of all rails and the clock that the chip was measured at."""
    machine = accelerator(row.preset)
    supplies = tuple(Supply(rail, row.volts, nominal) for rail, nominal in machine.rails.items())
    return energy(counts(row.preset, row.network), OperatingPoint(supplies, row.clock_mhz * 1e6))


def chip_pj(found: LayerEnergy) -> tuple[float, float]:
    """(dynamic, leakage) of all but DRAM."""
    leaked = sum(float(found.components[name].sum()) for name in LEAKAGE)
    return found.chip_pj - leaked, leaked


def predict(preset: str, fitted: str = FITTED) -> list[Predicted]:
    """Every network and point of a chip, from one network at its higher supply."""
    rows = measured(preset)
    anchor = next(row for row in rows if row.network == fitted)
    dynamic, leaked = chip_pj(spent(anchor))
    missing = anchor.energy_uj * 1e6 - leaked - dynamic
    took = spent(anchor).seconds * anchor.inferences_per_s
    cycle_pj, factor = missing / counts(preset, fitted).cycles, 1 + missing / dynamic
    found = []
    for row in rows:
        each = spent(row)
        dynamic, leaked = chip_pj(each)
        rest = cycle_pj * (row.volts / anchor.volts) ** 2 * counts(preset, row.network).cycles
        found.append(
            Predicted(
                row,
                (dynamic + rest + leaked) / 1e6,
                (dynamic * factor + leaked) / 1e6,
                each.seconds * row.inferences_per_s / took - 1,
            )
        )
    return found


def worst(rows: list[Predicted], fitted: str) -> tuple[float, float]:
    """Largest |error| of (the other networks at the supply of the fit, the fitted network at the other supply)."""
    high = max(row.measured.volts for row in rows)
    others = [abs(r.error) for r in rows if r.measured.volts == high and r.measured.network != fitted]
    supply = [abs(r.error) for r in rows if r.measured.volts != high and r.measured.network == fitted]
    return max(others), max(supply)


def _pct(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}%"  # no minus before 0


def table() -> str:
    """What is committed."""
    lines = []
    for preset in ("gap9-like", "ndp120-like"):
        rows = predict(preset)
        lines.append(f"{preset}: fitted to {FITTED} at {rows[0].measured.volts:g} V alone")
        lines.append(
            f"{'network':<8}{'V':>5}{'MHz':>7}{'measured uJ':>13}{'predicted uJ':>14}{'error':>8}"
            f"{'of time':>9}{'of power':>10}{'one factor':>12}"
        )
        for row in rows:
            m = row.measured
            lines.append(
                f"{m.network:<8}{m.volts:>5.2f}{m.clock_mhz:>7.1f}{m.energy_uj:>13.2f}{row.energy_uj:>14.2f}"
                f"{_pct(row.error):>8}{_pct(row.time_error):>9}{_pct(row.power_error):>10}{_pct(row.scaled_error):>12}"
            )
        for name in dict.fromkeys(row.measured.network for row in rows):
            networks, supply = worst(predict(preset, name), name)
            lines.append(
                f"fitted to {name}: other networks within {networks:.0%}, the other supply within {supply:.1%}"
            )
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="")
