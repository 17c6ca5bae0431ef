"""One chip at hand: fit each candidate transform to it, measure what it gains and costs, and pick one.

The chip is a fault map, in which the study's schedule says where the weights lie, or a live device, whose memory holds
them and whose array computes the forward pass (`inloop`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralfuse.chips.cost import NONE, Overheads
from neuralfuse.chips.stored import layout_of, place_on, store
from neuralfuse.quantized.evaluate import correct, transform
from neuralfuse.results.scale import ACCURACY
from neuralfuse.study.config import CalibrateConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.files import parse_study
from neuralfuse.study.making import Say
from neuralfuse.study.supplies import at_voltage
from neuralfuse.sweep.bench import Bench
from neuralfuse.training.calibrate import calibrate, calibration_set, storage_bytes
from neuralfuse.training.on_device import DeviceNetwork, tune
from neuralfuse.training.queries import WAYS, evolution
from neuralfuse.transforms.generators import NeuralFuse
from simulator.accelerator import accelerator
from simulator.device.protocol import Device
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.protection import parse

CANDIDATES = ("calibrated(affine)", "calibrated(channel_affine)", "calibrated(tiny)", "calibrated(ConvS, width=8)")


@dataclass(frozen=True)
class Fitted:
    """A candidate on this chip. Counts are of test images; savings are shares of the unprotected energy at nominal."""

    protection: str
    voltage: float  # in the unit of the curve
    correct_unprotected: int
    correct: int
    total: int
    saving_weight_sram: float
    saving_sram: float
    saving_chip: float
    saving_system: float
    cycles: int
    storage_bytes: int  # of the transform, which this chip has to keep
    steps: int
    images: int  # training images used
    queries: int  # images that the chip was asked about
    placement: str  # which weight lies in which cell: the schedule of `sram.schedule`, or `device`, word i in byte i


def candidates(study: StudyConfig, name: str | None = None) -> StudyConfig:
    """The study with its calibrated protections only (or CANDIDATES, where it has none), or the one called `name`."""
    if len(study.networks) > 1:
        raise InputError(study.name, "networks", [n.name for n in study.networks], "one, which the chip holds")
    if study.metric != ACCURACY.name:
        raise InputError(study.name, "metric", study.metric, "accuracy: candidates are compared by right answers")
    own = [p for p in study.protections if p.neuralfuse is not None and p.neuralfuse.calibrate is not None]
    if not own:
        raw = study.model_dump(mode="json") | {"protections": list(CANDIDATES)}
        own = list(parse_study(raw, study.name).protections)
    if name is not None:
        known, own = ", ".join(p.name for p in own), [p for p in own if p.name == name]
        if not own:
            raise InputError(study.name, "--protection", name, f"one of {known}")
    return study.model_copy(update={"protections": tuple(own)})


def check_unit(study: StudyConfig, unit: str) -> None:
    """Energy counts in the voltages of the study's curve: a chip of another unit cannot be costed."""
    curve = study.curve
    if unit != curve.unit:
        raise InputError(
            study.name, "sram.curve", curve.name, f"one in {unit}, as the chip has it, not in {curve.unit}"
        )


def fit_to_map(
    bench: Bench, protection: ProtectionConfig, fault_map: FaultMap, voltage: float, say: Say
) -> tuple[Fitted, NeuralFuse]:
    """Fit a protection's transform to the chip of a map and measure it at `voltage` on the test images."""
    study, network, (fuse, settings) = bench.study, bench.study.networks[0], _calibrated(protection)
    check_unit(study, fault_map.curve.unit)
    workload, machine = bench.folder.workload(network.name), accelerator(study.accelerators[0])
    sram = study.sram
    placed = place_on(fault_map, workload, machine, sram.schedule, network.bits, sram.weights_per_cell)
    faulty = bench.network(network.name)
    layout = layout_of(placed, bench.folder.counts(study.accelerators[0], network.name))
    chip = store(fault_map, placed, faulty, parse(protection.sram or "none", layout))
    bare = store(fault_map, placed, faulty, parse("none"))
    made = bench.transform(network.name, protection.name)
    assert made is not None
    swept = tuple(v for v in study.voltages if v >= fault_map.voltage_floor) or (voltage,)
    faults = [chip.faults(v) for v in settings.voltages(voltage, swept)]
    advance = say(protection.name)
    took = calibrate(faulty, made, bench.data, faults, settings, fuse.bits, study.seed, advance)
    faulty.set_faults(*bare.faults(voltage))
    before = int(bench.scores(network.name, bench.images).sum())
    faulty.set_faults(*chip.faults(voltage))
    after = int(bench.scores(network.name, transform(made, bench.images, study.batch_size)).sum())
    faulty.restore()
    asked = took.steps, took.images, took.queries
    right, overheads = (before, after), {"weight_buffer": chip.overhead}
    return _fitted(bench, protection, voltage, right, overheads, made, asked, placed.schedule), made


def fit_to_device(
    bench: Bench, protection: ProtectionConfig, device: Device, fault_map: FaultMap, voltage: float, say: Say
) -> tuple[Fitted, NeuralFuse]:
    """Fit a protection's transform with the forward pass on a live device, and measure it there.

    With access `gradient` the backward pass goes through the characterised map.
    """
    study, network, (fuse, settings) = bench.study, bench.study.networks[0], _calibrated(protection)
    check_unit(study, device.info.voltage_unit)
    elsewhere = settings.supervision != "labels" or settings.at == "all" or settings.precision != "float32"
    if protection.sram or elsewhere:
        allowed = "labels, one voltage, float32, and no sram, on a device"
        raise InputError(study.name, protection.name, device.info.name, allowed)
    faulty = bench.network(network.name)
    made = bench.transform(network.name, protection.name)
    assert made is not None
    data = calibration_set(bench.data, settings.images, study.seed)
    on_device = DeviceNetwork(device, faulty, data.train_x[:256], voltage)
    before = correct(on_device, bench.images, bench.labels)
    how, asked_before = (settings, fuse.bits, study.seed, say(protection.name)), on_device.images
    if settings.access == "gradient":
        tune(on_device, fault_map, made, data, *how)
    else:
        WAYS.get(settings.access, evolution)(on_device, made, data, *how)
    asked = settings.steps, len(data.train_y), on_device.images - asked_before
    after = correct(on_device, transform(made.eval(), bench.images), bench.labels)
    right = before, after
    return _fitted(bench, protection, on_device.voltage, right, NONE, made, asked, "device"), made


def _calibrated(protection: ProtectionConfig) -> tuple[NeuralFuseConfig, CalibrateConfig]:
    fuse = protection.neuralfuse
    if fuse is None or fuse.calibrate is None:
        raise InputError("calibrate", "protection", protection.name, "a calibrated one")
    return fuse, fuse.calibrate


def _fitted(
    bench: Bench,
    protection: ProtectionConfig,
    voltage: float,
    correct: tuple[int, int],
    overheads: Overheads,
    made: NeuralFuse,
    asked: tuple[int, int, int],
    placement: str,
) -> Fitted:
    study, network = bench.study, bench.study.networks[0].name
    at = at_voltage(study, study.accelerators[0], voltage)
    cost = bench.folder.cost(network, study.accelerators[0], protection, at, overheads)
    savings = cost.saving_weight_sram, cost.saving_sram, cost.saving_chip, cost.saving_system
    bits = _calibrated(protection)[0].bits or 32
    counts = *correct, len(bench.labels)
    return Fitted(
        protection.name, voltage, *counts, *savings, cost.cycles, storage_bytes(made, bits), *asked, placement
    )


def best(rows: Sequence[Fitted], least_saving: float | None = None) -> Fitted:
    """The most accurate row whose weight-SRAM saving is at least `least_saving` (a share); of equals, the cheapest.

    InputError where none saves so much.
    """
    within = [row for row in rows if least_saving is None or row.saving_weight_sram >= least_saving]
    if not within:
        most = max(row.saving_weight_sram for row in rows)
        allowed = f"at most {np.floor(1000 * most) / 10:g}, which the cheapest candidate saves at this voltage"
        raise InputError("calibrate", "--cost-limit", round(100 * (least_saving or 0), 6), allowed)
    return max(within, key=lambda row: (row.correct, row.saving_weight_sram))
