"""Which layers and which bits of a network's weights low voltage hurts: faults in one of them at a time.

Every chip of a study is read with all its faults, then with those of one layer (all bits), then with those of one bit
position (all layers); what is lost against the network without faults is compared chip by chip.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from neuralfuse.analysis.kept import by_network, kept
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.results.scale import ACCURACY, Scale
from neuralfuse.results.statistics import mean_interval
from neuralfuse.study.config import NetworkConfig, StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.sweep.bench import Bench, Die
from neuralfuse.sweep.executors import Workers
from simulator.energy import energy
from simulator.workload import stored_name
from sram.errors import InputError


@dataclass(frozen=True)
class Reading:
    """One chip read with the faults of one part of the weights and no others."""

    part: str  # "all", "layer" or "bit"
    name: str  # of the layer, or number of the bit: 0 is the least significant, the highest the sign
    chip: int
    stored_bits: int  # of this part
    flipped_bits: int  # of them, read wrong
    lost: float  # mean score of the test images without faults less that with these


def parts(faults: FaultyBits, model: FaultyNetwork) -> Iterator[tuple[str, str, int, FaultyBits]]:
    """(part, name, stored bits, its faults) for all, each layer, each bit. `faults` as in `FaultyNetwork.set_faults`.

    >>> from torch import nn
    >>> model = FaultyNetwork(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 3)), bits=2)
    >>> faults = np.array([0, 4, 4]), np.array([1, 0, 1], np.uint8), np.array([2, 2, 2], np.uint8)
    >>> [(part, name, bits, len(chosen[0])) for part, name, bits, chosen in parts(faults, model)]
    [('all', '', 10, 3), ('layer', '0', 4, 1), ('layer', '1', 6, 2), ('bit', '0', 5, 1), ('bit', '1', 5, 2)]
    """
    weight, bit, kind = faults

    def only(chosen: np.ndarray) -> FaultyBits:
        return weight[chosen], bit[chosen], kind[chosen]

    words = model.words.size
    yield "all", "", words * model.bits, faults
    for layer in model.layer_table:
        inside = (weight >= layer.offset) & (weight < layer.offset + layer.size)
        yield "layer", layer.name.removesuffix(".weight"), layer.size * model.bits, only(inside)
    for b in range(model.bits):
        yield "bit", str(b), words, only(bit == b)


def read_chip(
    model: FaultyNetwork,
    faults: FaultyBits,
    chip: int,
    clean: float,
    score: Callable[[], float],
) -> list[Reading]:
    """Read one chip part by part. `score` measures with the faults that are set, the mean over the test images; `clean`
    is that without any."""
    readings = []
    for part, name, stored, chosen in parts(faults, model):
        model.set_faults(*chosen)
        flipped = round(model.flip_rate() * model.words.size * model.bits)
        readings.append(Reading(part, name, chip, stored, flipped, clean - (score() if flipped else clean)))
    model.restore()
    return readings


def _of_folder(folder: str, network: str, chip: int, voltage: float) -> list[Reading]:
    """One evaluation chip of a prepared study folder, first accelerator and structure: what workers are given.

    Kept in the folder, so that a run that was killed goes on where it stopped.
    """

    def read(bench: Bench) -> list[dict]:
        study, model = bench.study, bench.network(network)
        stored = bench.chip(network, Die(study.accelerators[0], study.forms[0], chip), ())
        clean = bench.mean(bench.clean(network, None))
        found = read_chip(
            model, stored.faults(voltage), chip, clean, lambda: bench.mean(bench.scores(network, bench.images))
        )
        return [asdict(reading) for reading in found]

    made_from = [network, chip, voltage, list(Reading.__dataclass_fields__)]
    return [Reading(**reading) for reading in kept(folder, made_from, read)]


def supply(study: StudyConfig, voltage: float | None) -> float:
    """The study's lowest voltage, or this one; InputError below the lowest, where its chips have no map."""
    if voltage is not None and not voltage >= study.voltage_floor:
        allowed = f"{study.voltage_floor:g}, the lowest of the study {study.name!r}, or more"
        raise InputError("sensitivity", "voltage", voltage, allowed)
    return study.voltage_floor if voltage is None else voltage


def measure(
    folder: StudyFolder,
    voltage: float,
    workers: Workers,
    advance: Callable[[int, int, dict[str, float]], None],
) -> pd.DataFrame:
    """`summarise` of all networks of a prepared study over its evaluation chips at `voltage`; chips done are kept."""
    study, scale = folder.study, folder.scale
    chips, tables = study.chips.numbers, []
    found = by_network(_of_folder, folder, chips, voltage, workers, advance)
    for network in study.networks:
        table = summarise([reading for readings in found[network.name] for reading in readings], scale)
        share = reads_share(folder, network, study.accelerators[0])
        shares = [share.get((part, name), 0.0) for part, name in zip(table.part, table.name, strict=True)]
        table.insert(table.columns.get_loc("flip_rate"), "reads_share", shares)
        setting = (network.name, study.accelerators[0], study.sram.curve, study.forms[0], voltage)
        for name, value in zip(("network", "accelerator", "curve", "structure", "voltage"), setting, strict=True):
            table.insert(table.columns.get_loc("part"), name, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def reads_share(folder: StudyFolder, network: NetworkConfig, accelerator: str) -> dict[tuple[str, str], float]:
    """What part of the energy of all weight-SRAM reads each part (part, name) of a network's bits is; words that no
    layer fetches have none."""
    counts = folder.counts(accelerator, network.name)
    spent = energy(counts).components["weight_sram_reads"]
    shares: dict[tuple[str, str], float] = {("all", ""): 1.0}
    for layer, part in zip(counts.workload.layers, spent / spent.sum(), strict=True):
        if layer.weights:
            key = "layer", stored_name(layer).removesuffix(".weight")  # one weight may serve several layers
            shares[key] = shares.get(key, 0.0) + float(part)
    return shares | {("bit", str(b)): 1 / network.bits for b in range(network.bits)}


def summarise(readings: list[Reading], scale: Scale = ACCURACY) -> pd.DataFrame:
    """Mean over chips of what each part loses, in accuracy points or the scale's unit, with its 95% interval; as they
    come."""
    table = pd.DataFrame([asdict(r) for r in readings])
    records = []
    for (part, name), rows in table.groupby(["part", "name"], sort=False):
        low, high = (scale.per_score * end for end in scale.differences)
        lost = mean_interval(scale.per_score * rows.lost.to_numpy(), within=(low, high))
        flip_rate = rows.flipped_bits.mean() / rows.stored_bits.iloc[0]
        records.append((part, name, rows.stored_bits.iloc[0], flip_rate, lost.chips, lost.mean, lost.low, lost.high))
    columns = [
        "part",
        "name",
        "stored_bits",
        "flip_rate",
        "chips",
        "lost_points",
        "lost_points_low",
        "lost_points_high",
    ]
    return pd.DataFrame(records, columns=columns)
