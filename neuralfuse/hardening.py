"""Which layers keep how many of their top bits at nominal voltage: least damage within a limit of energy.

Damage is the mean squared change of the network's outputs, one layer faulty at a time, over training chips and
training images, neither of which is measured on. Changes of several layers are close to independent, so their squares
add up. A layer whose k top bits are hardened keeps k / bits of its reads at nominal voltage. What is chosen is a
multiple-choice knapsack, solved along the lower convex hull of each layer's damage over cost (Sinha and Zoltners,
Operations Research 27, 1979): no worse than the best choice but for one step of one layer.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from neuralfuse import evaluate
from neuralfuse.config import ProtectionConfig, StudyConfig, digest
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.sensitivity import reads_share
from neuralfuse.sources import Chips, Faults
from neuralfuse.sweep.bench import bench_of, one_thread
from neuralfuse.sweep.executors import Workers
from neuralfuse.sweep.task import code_version
from neuralfuse.training import batch_indices
from sram import failure
from sram.errors import InputError
from sram.files import write_atomic

CHIPS, IMAGES = 4, 64
EXACT = 1e-12  # what a saving may be above another that it is meant to equal
TOP = 3  # a layer keeps so many bits at most, or all of them


def levels(bits: int) -> tuple[int, ...]:
    """How many top bits a layer may keep.

    >>> levels(8), levels(2)
    ((0, 1, 2, 3, 8), (0, 1, 2))
    """
    return (*range(min(TOP + 1, bits)), bits)


def damage(
    model: FaultyNetwork, faults: Faults, images: Tensor, answers: Callable[[Tensor], Tensor] | None = None
) -> dict[str, list[float]]:
    """Mean squared change of the outputs for images [n, ...] by the faults of each layer, for each of `levels`.

    `answers` is what computes with the model's words, if not the model itself.
    """
    weight, bit, kind = faults

    def outputs() -> Tensor:
        return evaluate.transform(answers or model, images).double()

    model.restore()
    clean, found = outputs(), {}
    for layer in model.layer_table:
        inside = (weight >= layer.offset) & (weight < layer.offset + layer.size)
        changed = []
        for kept in levels(model.bits):
            left = inside & (bit < model.bits - kept)
            model.set_faults(weight[left], bit[left], kind[left])
            changed.append(float(((outputs() - clean) ** 2).mean()) if model.flip_rate() else 0.0)
        found[layer.name.removesuffix(".weight")] = changed
    model.restore()
    return found


def choose(damages: np.ndarray, costs: np.ndarray, limit: float) -> np.ndarray:
    """int64[layers]: for each layer the column of `damages` and `costs` float64[layers, levels] to take, so that the
    damage is small and the sum of the costs at most `limit`. Costs rise from 0 along each row.

    >>> damages = np.array([[8.0, 2.0, 0.0], [9.0, 8.0, 0.0]])
    >>> costs = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    >>> [choose(damages, costs, limit).tolist() for limit in (0.5, 1, 3, 4)]
    [[0, 0], [1, 0], [1, 2], [2, 2]]
    """
    steps = []
    for layer, (damage_at, cost_at) in enumerate(zip(damages, costs, strict=True)):
        at = 0
        while at < len(cost_at) - 1:
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = np.nan_to_num((damage_at[at] - damage_at[at + 1 :]) / (cost_at[at + 1 :] - cost_at[at]))
            best = len(gain) - 1 - int(np.argmax(gain[::-1]))  # of equals the farthest
            if gain[best] <= 0:
                break
            steps.append((-gain[best], layer, at, at + 1 + best))
            at += 1 + best
    taken, left = np.zeros(len(damages), np.int64), limit
    for _, layer, at, to in sorted(steps):
        cost = costs[layer, to] - costs[layer, at]
        if taken[layer] == at and cost <= left:
            taken[layer], left = to, left - cost
    return taken


def protection(bits: Mapping[str, int]) -> str:
    """The text that names these top bits of these layers; "none" for none.

    >>> protection({"stem.0": 8, "body.0": 1, "body.1": 0, "head": 8})
    'hardened_msb:8@stem.0,head;1@body.0'
    """
    kept = sorted({n for n in bits.values() if n}, reverse=True)
    rules = [f"{n}@{','.join(name for name, own in bits.items() if own == n)}" for n in kept]
    return f"hardened_msb:{';'.join(rules)}" if rules else "none"


def with_layers(study: StudyConfig) -> StudyConfig:
    """The study with a protection of single layers, for the checks of whether it can have one."""
    every = ProtectionConfig(name="hardened by layer", sram=("hardened_msb:1@*",))
    return study.model_copy(update={"protections": (every,)})


def budget(study: StudyConfig, voltage: float, saving: float) -> float:
    """What part of the reads' energy may stay at nominal voltage, if `saving` (a share) of the weight-SRAM energy is to
    be saved at `voltage`. InputError where the bare network saves less."""
    most = 1 - (voltage / failure.curve(study.sram.curve).nominal) ** 2
    if not 0 <= saving <= most + EXACT:
        allowed = f"0 to {np.floor(1000 * (most + EXACT)) / 10:g}, which the bare network saves at {voltage:g}"
        raise InputError("sensitivity", "--cost-limit", round(100 * saving, 6), allowed)
    return max(0.0, 1 - saving / most) if most else 0.0


def _of_folder(folder: str, network: str, draw: int, voltage: float) -> dict[str, list[float]]:
    """`damage` on one training chip of a prepared study folder, first accelerator and structure: what workers do.

    Kept in the folder, so that a run that was killed goes on where it stopped.
    """
    stamp = json.loads((Path(folder) / "provenance.json").read_text(encoding="utf-8"))["stamp"]
    made_from = ["damage", stamp, network, draw, voltage, code_version(), IMAGES, TOP]
    kept = Path(folder) / "sensitivity" / f"{digest(made_from)}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    with one_thread():
        bench = bench_of(folder, stamp)
        s, model, placed = (
            bench.study.sram,
            bench.network(network),
            bench.placement(network, bench.study.accelerators[0]),
        )
        numbering = model.numbering(placed.tensors)
        chips = Chips(placed, numbering, s.curve, s.structures[0], [voltage], bench.study.seed, s.mode, s.stuck_at_one)
        shown = batch_indices(len(bench.data.train_y), min(IMAGES, len(bench.data.train_y)), bench.study.seed, 0)
        images = bench.data.train_x[shown].to(bench.study.device)
        found = damage(model, chips(draw), images, bench.answers(network))
    write_atomic(kept, json.dumps(found))
    return found


def measure(
    study: StudyConfig,
    folder: str | Path,
    voltage: float,
    saving: float,
    workers: Workers,
    advance: Callable[[int, int, dict[str, float]], None],
) -> pd.DataFrame:
    """The choice for each network of a prepared study at `voltage`, where `saving` of the weight-SRAM energy is to be
    left: a row a layer with its share of the reads, its damage by hardened bits, and the `hardened_bits` chosen."""
    total, done = len(study.networks) * CHIPS, 0

    def one_more(_: object) -> None:
        nonlocal done
        done += 1
        advance(done, total, {})

    tables = []
    with workers.make() as pool:
        waiting = {}
        for network in study.networks:
            asked = (str(folder), network.name)
            waiting[network.name] = [pool.submit(_of_folder, *asked, draw, voltage) for draw in range(CHIPS)]
            for future in waiting[network.name]:
                future.add_done_callback(one_more)
        for network in study.networks:
            found = [future.result() for future in waiting[network.name]]
            names, kept = list(found[0]), levels(network.bits)
            mean = np.mean([[one[name] for name in names] for one in found], axis=0)
            share = reads_share(folder, network, study.accelerators[0])
            reads = np.array([share["layer", name] for name in names])
            costs = reads[:, None] * np.array(kept) / network.bits
            taken = choose(mean, costs, budget(study, voltage, saving))
            table = pd.DataFrame({"network": network.name, "voltage": voltage, "layer": names, "reads_share": reads})
            for k, column in zip(kept, mean.T, strict=True):
                table[f"damage_{k}"] = column
            table["hardened_bits"] = np.array(kept)[taken]
            tables.append(table)
    return pd.concat(tables, ignore_index=True)
