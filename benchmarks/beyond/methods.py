"""The methods: what is fitted to a chip, with what knowledge, and under which condition it is measured."""

import time
from dataclasses import dataclass, field, replace

from torch import nn

from benchmarks.beyond.lot import Lot, known
from neuralfuse.calibrate import Calibrated, Settings, calibrate, storage_bytes
from sram.protection import Overhead


@dataclass(frozen=True)
class Method:
    """`start`: no transform (None), the generic one, or an untrained one; it is fitted where `made_at` names supplies.

    `changes` are of `calibrate.Settings`; `knows` is the share of the faulty bits that the fit knows of; `another`
    fits it to the next chip instead; `again` fits it at the main supply first, then with a quarter of the steps.
    """

    name: str
    start: str | None = None
    made_at: tuple[str, ...] = ()
    changes: dict = field(default_factory=dict)
    condition: str = "main"
    knows: float = 1.0
    another: bool = False
    again: bool = False
    sram: str = "none"
    statistics: bool = False  # BatchNorm's, taken anew


def fitted(name: str, start: str = "affine", made_at: tuple[str, ...] = ("main",), **others) -> Method:
    return Method(name, start, made_at, **others)


METHODS = [
    *(Method("unprotected", condition=c) for c in ("main", "higher", "drifted", "intermittent")),
    *(Method("generic", "generic", condition=c) for c in ("main", "higher", "drifted", "intermittent")),
    fitted("generic, tuned to the chip", "generic"),
    *(fitted(f"generic, tuned on {n} images", "generic", changes={"images": n}) for n in (1024, 128, 16)),
    fitted("affine"),
    fitted("channel_affine", "channel_affine"),
    fitted("tiny", "tiny"),
    fitted("tiny, 128 images", "tiny", changes={"images": 128}),
    fitted("tiny, outputs only", "tiny", changes={"supervision": "outputs"}),
    fitted("tiny, 30% of the faults unknown", "tiny", knows=0.7),
    fitted("tiny", "tiny", condition="drifted"),
    fitted("tiny of another chip", "tiny", another=True),
    fitted("universal", "universal"),
    fitted("generator from scratch", "scratch"),
    *(fitted(f"affine, {n} images", changes={"images": n}) for n in (1024, 128, 16)),
    fitted("affine, outputs only", changes={"supervision": "outputs"}),
    fitted("affine, outputs only, 128 images", changes={"supervision": "outputs", "images": 128}),
    fitted("affine, statistics only", changes={"supervision": "statistics"}),
    *(fitted(f"affine, {n} steps of queries", changes={"access": "queries", "steps": n, "batch": 32})
      for n in (50, 200, 800)),
    fitted("affine", made_at=("higher",), condition="higher"),
    fitted("affine of the lowest supply", condition="higher"),
    *(fitted("affine of all supplies", made_at=("main", "higher"), condition=c) for c in ("main", "higher")),
    fitted("affine, 10% of the faults unknown", knows=0.9),
    fitted("affine, 30% of the faults unknown", knows=0.7),
    fitted("affine", condition="drifted"),
    fitted("affine, recalibrated", made_at=("drifted",), condition="drifted", again=True),
    fitted("affine", condition="intermittent"),
    fitted("affine of another chip", another=True),
    Method("BatchNorm statistics of the chip", statistics=True),
    *(Method(name, sram=name) for name in ("secded72", "spare_columns:4", "hardened_msb:2")),
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    accuracy: float
    saving_weight_sram: float
    saving_system: float
    storage_bytes: int
    took: Calibrated
    seconds: float


def run(
    method: Method,
    lot: Lot,
    chip: int,
    seed: int,
    settings: Settings,
    scratch: tuple[str, int | None],
    pixel_rate: float | None = None,
) -> Outcome:
    """One method on one chip. `scratch`: name and width of the generator that is fitted from nothing; `pixel_rate`:
    learning rate of numbers of pixels."""
    start = time.perf_counter()
    faults, overhead = lot.faults(chip, method.condition, method.sram)
    if method.statistics:
        accuracy = lot.with_own_statistics(faults)
        return _outcome(lot, method, None, overhead, accuracy, Calibrated(0, 1024, 0, 0.0), start)
    made, took = None, Calibrated(0, 0, 0, 0.0)
    if method.start is not None:
        name, width = scratch if method.start == "scratch" else (method.start, None)
        made = lot.transform(name, width, seed)
    if made is not None and method.made_at:
        own = replace(settings, **method.changes)
        if method.start in ("affine", "universal"):
            own = replace(own, learning_rate=pixel_rate)
        of = chip + 1 if method.another else chip
        if method.again:
            calibrate(lot.faulty, made, lot.data, [lot.faults(of)[0]], own, seed=seed)
            own = replace(own, steps=max(1, own.steps // 4))
        seen = [known(lot.faults(of, c)[0], method.knows, seed) for c in method.made_at]
        took = calibrate(lot.faulty, made, lot.data, seen, own, seed=seed)
    return _outcome(lot, method, made, overhead, lot.accuracy(made, faults), took, start)


def _outcome(
    lot: Lot,
    method: Method,
    made: nn.Module | None,
    overhead: Overhead,
    accuracy: float,
    took: Calibrated,
    start: float,
) -> Outcome:
    savings = lot.savings(made, method.condition, overhead)
    stored = storage_bytes(made) if made is not None and method.made_at else 0
    return Outcome(accuracy, *savings, stored, took, time.perf_counter() - start)
