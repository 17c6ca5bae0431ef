"""The methods: what is fitted to a chip, with what knowledge, and under which condition it is measured."""

import time
from dataclasses import dataclass

from benchmarks.beyond.fits import Fit, Fitter, Made, Prior
from benchmarks.beyond.lot import BY_LAYER, OTHERS
from neuralfuse.training.calibrate import Calibrated, storage_bytes


@dataclass(frozen=True)
class Method:
    """A transform made by a fit, or one for all chips (a name for `Lot.transform`, or a prior), or none."""

    name: str
    transform: Fit | Prior | str | None = None
    condition: str = "main"
    sram: str = "none"
    statistics: bool = False  # BatchNorm's, taken anew
    retrained: bool = False  # the network, with random bit errors

    @property
    def fit(self) -> Fit | None:
        return self.transform if isinstance(self.transform, Fit) else None


AFFINE, TINY = Fit("affine"), Fit("tiny")
LOWEST, EACH, ALL = AFFINE, Fit("affine", ("higher",)), Fit("affine", ("main", "higher"))
DRIFTS = ("drifted", "aged")
FEW = (10, 25)  # steps of a warm start


def after(condition: str, start: str, **how) -> Fit:
    """Once more where the chip is now, from what was fitted at the main supply, in a quarter of the steps."""
    return Fit(Fit(start), (condition,), share=0.25, **how)


METHODS = [
    *(Method("unprotected", condition=c) for c in ("main", "higher", "between", "drifted", "aged", "intermittent")),
    *(Method("generic", "generic", c) for c in ("main", "higher", "drifted", "intermittent")),
    *(Method(f"generic {name}", f"generic {name}") for name in OTHERS),
    Method("random bit errors, network retrained", retrained=True),
    Method("affine", AFFINE),
    Method("tiny", TINY),
    Method("affine of another chip", Fit("affine", another=True)),
    Method("tiny of another chip", Fit("tiny", another=True)),
    Method("BatchNorm statistics of the chip", statistics=True),
    *(Method(name, sram=name) for name in ("secded72", "spare_columns:4", "hardened_msb:2")),
    # what the memory does and what the transform does, together
    Method("hardened_msb:1", sram="hardened_msb:1"),
    *(Method(f"{name} and affine", Fit("affine", sram=name), sram=name) for name in ("hardened_msb:1", "secded72")),
    Method("hardened by layer", sram=BY_LAYER),
    Method("hardened by layer and affine", Fit("affine", sram=BY_LAYER), sram=BY_LAYER),
    # other transforms
    Method("channel_affine", Fit("channel_affine")),
    Method("universal", Fit("universal")),
    Method("generator from scratch", Fit("scratch")),
    Method("generic, tuned to the chip", Fit("generic")),
    *(Method(f"generic, tuned on {n} images", Fit("generic", changes={"images": n})) for n in (1024, 128, 16)),
    Method("retrained network and affine", AFFINE, retrained=True),
    # supervision
    Method("affine, outputs only", Fit("affine", changes={"supervision": "outputs"})),
    Method("affine, statistics only", Fit("affine", changes={"supervision": "statistics"})),
    *(Method(f"affine, {n} images", Fit("affine", changes={"images": n})) for n in (1024, 128, 16)),
    Method("affine, outputs only, 128 images", Fit("affine", changes={"supervision": "outputs", "images": 128})),
    Method("tiny, 128 images", Fit("tiny", changes={"images": 128})),
    Method("tiny, outputs only", Fit("tiny", changes={"supervision": "outputs"})),
    # access
    *(Method(f"affine, {n} steps of queries", Fit("affine", changes={"access": "queries", "steps": n, "batch": 32}))
      for n in (50, 200, 800)),
    # `at`: one for each supply (a small table), the lowest supply's, one made at two supplies; "between" the two it was
    # made at none
    Method("affine of the lowest supply", LOWEST, "higher"),
    Method("affine", EACH, "higher"),
    *(Method("affine of all supplies", ALL, c) for c in ("main", "between", "higher")),
    Method("affine of the lowest supply", LOWEST, "between"),
    Method("affine of the higher supply", EACH, "between"),
    Method("affine", Fit("affine", ("between",)), "between"),
    # what the fit does not know
    Method("affine, 10% of the faults unknown", Fit("affine", knows=0.9)),
    Method("affine, 30% of the faults unknown", Fit("affine", knows=0.7)),
    Method("tiny, 30% of the faults unknown", Fit("tiny", knows=0.7)),
    Method("affine", AFFINE, "intermittent"),
    *(Method("affine", AFFINE, c) for c in DRIFTS),
    *(Method("affine, recalibrated from canaries", after(c, "affine", canaries=True), c) for c in DRIFTS),
    *(Method("affine, recalibrated", after(c, "affine"), c) for c in DRIFTS),
    Method("tiny", TINY, "drifted"),
    # warm starts
    *(Method(f"{name}, {n} steps", Fit(name, changes={"steps": n})) for name in ("affine", "tiny") for n in FEW),
    *(Method(f"{name} of the lot", Prior(name, "turns")) for name in ("affine", "tiny")),
    *(Method(f"{name}, {n} steps from a {kind} prior", Fit(Prior(name, kind), changes={"steps": n}))
      for name in ("affine", "tiny") for kind in ("turns", "reptile") for n in FEW),
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    accuracy: float
    saving_weight_sram: float
    saving_system: float
    storage_bytes: int
    took: Calibrated
    seconds: float


def run(method: Method, fitter: Fitter, chip: int, seed: int) -> Outcome:
    """One method on one chip."""
    start, lot = time.perf_counter(), fitter.lot
    faults, overhead = lot.faults(chip, method.condition, method.sram)
    made, took, fitting = None, Calibrated(0, 0, 0, 0.0), 0.0
    if method.statistics:
        accuracy, took = lot.with_own_statistics(faults), Calibrated(0, 1024, 0, 0.0)
    else:
        if method.fit is not None:
            found: Made = fitter(method.fit, chip, seed)
            made, took, fitting = found.transform, found.took, found.seconds
            start = time.perf_counter()  # a fit counts once, also where an earlier method made it
            seen = lot.seen(made)
        elif method.transform is not None:
            assert not isinstance(method.transform, Fit)
            made, seen = fitter.for_all(method.transform, seed)
        else:
            seen = lot.seen(None)
        accuracy = lot.accuracy(seen, faults)
    savings = lot.savings(made, method.condition, overhead)
    stored = storage_bytes(made) if made is not None and method.fit else 0
    return Outcome(accuracy, *savings, stored, took, fitting + time.perf_counter() - start)
