"""Which layers keep how many of their top bits at nominal voltage: least damage within a limit of energy.

Damage is the mean squared change of the network's outputs, one layer faulty at a time, over training chips and
training images, neither of which is measured on. Changes of several layers are close to independent, so their squares
add up. A layer whose k top bits are hardened keeps k / bits of its reads at nominal voltage. What is chosen is a
multiple-choice knapsack, solved along the lower convex hull of each layer's damage over cost (Sinha and Zoltners,
Operations Research 27, 1979): no worse than the best choice but for one step of one layer.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from neuralfuse.analysis.kept import by_network, kept
from neuralfuse.analysis.sensitivity import reads_share
from neuralfuse.chips.sources import Chips
from neuralfuse.quantized import evaluate
from neuralfuse.quantized.faulty import FaultyBits, FaultyNetwork
from neuralfuse.study.check import check
from neuralfuse.study.config import ProtectionConfig, StudyConfig
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import memory_of
from neuralfuse.sweep.bench import Bench
from neuralfuse.sweep.executors import Workers
from neuralfuse.training.loop import batch_indices
from simulator.accelerator import accelerator
from simulator.operating_point import nominal_on
from sram.errors import InputError

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
    model: FaultyNetwork, faults: FaultyBits, images: Tensor, answers: Callable[[Tensor], Tensor] | None = None
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
        for top in levels(model.bits):
            left = inside & (bit < model.bits - top)
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


def check_layers(study: StudyConfig, saving: float) -> None:
    """Refuse a study whose layers cannot be hardened one by one, before anything is trained."""
    every = ProtectionConfig(name="hardened by layer", sram=("hardened_msb:1@*",))
    try:
        check(study.model_copy(update={"protections": (every,)}))
    except InputError as error:
        if f"protections.{every.name}" not in error.key:
            raise
        raise InputError("sensitivity", "--cost-limit", round(100 * saving, 6), error.allowed) from None


def budget(study: StudyConfig, voltage: float, saving: float) -> float:
    """What part of the reads' energy may stay at nominal voltage, if `saving` (a share) of the weight-SRAM energy is to
    be saved at `voltage`. InputError where the bare network saves less."""
    nominal = nominal_on(accelerator(study.accelerators[0]), study.curve)
    most = 1 - (voltage / nominal) ** 2
    if not 0 <= saving <= most + EXACT:
        allowed = f"0 to {np.floor(1000 * (most + EXACT)) / 10:g}, which the bare network saves at {voltage:g}"
        raise InputError("sensitivity", "--cost-limit", round(100 * saving, 6), allowed)
    return max(0.0, 1 - saving / most) if most else 0.0


def _of_folder(folder: str, network: str, draw: int, voltage: float) -> dict[str, list[float]]:
    """`damage` on one training chip of a prepared study folder, first accelerator and structure: what workers do.

    Kept in the folder, so that a run that was killed goes on where it stopped.
    """

    def read(bench: Bench) -> dict[str, list[float]]:
        s, model, seed = bench.study.sram, bench.network(network), bench.study.seed
        placed = bench.placement(network, bench.study.accelerators[0])
        numbering = model.numbering(placed.tensors)
        chips = Chips(memory_of(s, placed.geometry, s.structures[0]), placed, numbering, [voltage], seed)
        available = len(bench.data.train_y)
        shown = batch_indices(available, min(IMAGES, available), seed, 0)
        return damage(model, chips(draw), bench.data.train_x[shown].to(bench.study.device), bench.answers(network))

    return kept(folder, ["damage", network, draw, voltage, IMAGES, TOP], read)


def measure(
    folder: StudyFolder,
    voltage: float,
    saving: float,
    workers: Workers,
    advance: Callable[[int, int, dict[str, float]], None],
) -> pd.DataFrame:
    """The choice for each network of a prepared study at `voltage`, where `saving` of the weight-SRAM energy is to be
    left: a row a layer with its share of the reads, its damage by hardened bits, and the `hardened_bits` chosen."""
    study = folder.study
    found, tables = by_network(_of_folder, folder, range(CHIPS), voltage, workers, advance), []
    for network in study.networks:
        damages = found[network.name]
        names, kept_bits = list(damages[0]), np.array(levels(network.bits))
        mean = np.mean([[one[name] for name in names] for one in damages], axis=0)
        share = reads_share(folder, network, study.accelerators[0])
        reads = np.array([share.get(("layer", name), 0.0) for name in names])
        taken = choose(mean, reads[:, None] * kept_bits / network.bits, budget(study, voltage, saving))
        table = pd.DataFrame({"network": network.name, "voltage": voltage, "layer": names, "reads_share": reads})
        for bits, column in zip(kept_bits, mean.T, strict=True):
            table[f"damage_{bits}"] = column
        table["hardened_bits"] = kept_bits[taken]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
