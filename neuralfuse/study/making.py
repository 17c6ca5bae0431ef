"""Making a study folder's networks and generators: trained, or loaded, and rounded to words; each skipped where it lies
there, made from the same settings."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neuralfuse.chips.sources import BothSources, Chips, From, InTurn, Source, StepsInTurn, training_source
from neuralfuse.chips.stored import place_generator
from neuralfuse.data import Dataset
from neuralfuse.networks.model_file import ModelFile
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.integer import Faults, Frozen, IntegerNetwork
from neuralfuse.quantized.metric import cross_entropy, metric
from neuralfuse.quantized.program import compile_network
from neuralfuse.quantized.quantize import quantize_in_place
from neuralfuse.study import records
from neuralfuse.study.config import NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.data import (
    build_network,
    build_transform,
    content_hashes,
    kind_of,
    load_data,
    metric_hashes,
    training_hash,
    workload_of,
)
from neuralfuse.study.digest import RESULTS_VERSION, digest
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.lowered import Lowered, TrainingDies
from neuralfuse.study.memory import buffers_lowered, memory_of, sees_activations
from neuralfuse.study.supplies import training_supplies
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.generator import HeldOut, train_generator
from neuralfuse.training.loop import random, threads
from neuralfuse.training.network import train_network
from neuralfuse.training.own_words import OwnFaults
from neuralfuse.training.settings import HeldOutSettings, own_objective
from neuralfuse.transforms import generators
from neuralfuse.transforms.per_voltage import turn
from simulator.accelerator import accelerator
from simulator.device.protocol import VERSION
from simulator.placement import Placement
from simulator.readers.read import trace
from sram.errors import InputError
from sram.files import write_atomic

UNIT_IMAGES = 256  # of training, whose largest activations are the largest words
FIRST_HELD_OUT_DRAW = 10**9  # more than any training draws
Base = tuple[NetworkConfig, nn.Module]  # a base network and how it is stored
Words = tuple[Placement, FaultyNetwork, int]  # where a network's words lie, and from which bank of a chip on
Say = Callable[[str], Callable[[int, int, dict[str, float]], None]]  # start a named step, get its progress callback


def make_network(folder: StudyFolder, config: NetworkConfig, say: Say) -> nn.Module:
    """The frozen base network, its weights rounded to words."""
    study, path = folder.study, folder.network_file(config.name)
    network = build_network(config, study)
    settings = network_settings(study, config)
    if not _found_or_copied(path, settings):
        if config.checkpoint is not None:
            checkpoint.load_network(network, config.checkpoint)
        elif not isinstance(network, ModelFile):  # a file brings its weights
            if config.start is not None:
                checkpoint.load_network(network, config.start)
            train_network(
                network.to(study.device),
                load_data(study.dataset),
                config.training,
                config.words,
                seed=study.seed,
                run=Run(path.with_suffix(".partial"), digest(settings), say(f"train {config.name}")),
                metric=metric(study.metric),
            )
        quantize_in_place(network.cpu(), config.words)
        checkpoint.save(path, network.state_dict(), _record(settings))
        path.with_suffix(".partial").unlink(missing_ok=True)
    return folder.network(config.name)


def make_program(folder: StudyFolder, config: NetworkConfig, network: nn.Module, say: Say) -> None:
    """Write the network as a device runs it; training images give the units of its activations."""
    study, path = folder.study, folder.program_file(config.name)
    measured_on = [UNIT_IMAGES, training_hash(study.dataset), VERSION]
    stored = bool(buffers_lowered(study))
    measured_on += ["stored"] * stored
    settings = digest([network_settings(study, config), _tensor_hash(network), *measured_on])
    if path.is_file() and records.read(path, ["settings"])["settings"] == settings:
        return
    advance = say(f"units of the activations of {config.name}")
    images = load_data(study.dataset).train_x
    chosen = torch.randperm(len(images), generator=random(study.seed, -3))[:UNIT_IMAGES]
    faulty = FaultyNetwork(copy.deepcopy(network), per_channel=config.per_channel, device=study.device, fold=True)
    with threads(1):  # units are sums, too
        made = compile_network(faulty, images[chosen], stored).to_json()
    records.write(path, {"settings": settings, "program": made})
    advance(1, 1, {})


def make_generator(
    folder: StudyFolder, bases: list[Base], protection: ProtectionConfig, fuse: NeuralFuseConfig, say: Say
) -> generators.NeuralFuse:
    """The protection's generator, trained on `bases`, behind x -> clip(x + G(x)), its weights rounded; or untrained,
    where each chip gets its own."""
    study, path = folder.study, folder.generator_file(bases[0][0].name, protection)
    transform = build_transform(fuse, study)
    settings = generator_settings(study, bases, fuse)
    if not _found_or_copied(path, settings):
        if fuse.checkpoint is not None and not fuse.starts_untrained:
            checkpoint.load_network(transform.generator, fuse.checkpoint)
        elif not fuse.starts_untrained:
            _train_generator(folder, bases, protection, fuse, transform, digest(settings), say)
        if fuse.bits is not None:
            quantize_in_place(transform.cpu(), fuse.bits)
        checkpoint.save(path, transform.generator.state_dict(), _record(settings))
        for stage in (".partial", ".partial.classes", ".partial.patterns", ".partial.paint"):
            path.with_suffix(stage).unlink(missing_ok=True)
    checkpoint.load_network(transform.generator, path)
    return transform.eval()


def _train_generator(
    folder: StudyFolder,
    bases: list[Base],
    protection: ProtectionConfig,
    fuse: NeuralFuseConfig,
    transform: generators.NeuralFuse,
    settings: str,
    say: Say,
) -> None:
    """EOPM on training chips: other chip numbers than any evaluation uses, all structures of the study in turn."""
    study, path = folder.study, folder.generator_file(bases[0][0].name, protection)
    assert fuse.training is not None
    networks: list[tuple[Frozen, Source]] = []
    lowered = Lowered(folder) if sees_activations(study, fuse) else None
    draws = fuse.training.maps  # of a step
    apart, turns = (draws, len(fuse.train_voltages or ())) if fuse.per_voltage else (1, 1)
    held_out_draw = FIRST_HELD_OUT_DRAW - FIRST_HELD_OUT_DRAW % (apart * turns)  # chip i has the voltage of step i
    own_draws = held_out_draw // len(bases)  # of a network: chips of its own, which are none of those held out
    # step 0 at the first voltage, in the first structure, as of one network alone
    own_draws -= own_draws % (apart * turns * len(study.sram.structures))
    for which, (config, network) in enumerate(bases):
        faulty = FaultyNetwork(copy.deepcopy(network), config.words, device=study.device, fold=True)
        write_workload(folder, network, network_settings(study, config), config.name)
        placed = folder.placement(config.name, study.accelerators[0])
        words = [(placed, faulty, 0)]
        if fuse.own_faults == "trained":
            words.append(_own_words(folder, fuse, placed, transform, (config.name, protection.name)))
        frozen: Frozen = faulty
        if lowered is None:
            source = _source(study, fuse, words, draws)
        else:
            frozen = IntegerNetwork(faulty, folder.program(config.name))
            source = _whole(lowered, fuse, config.name, words[0], draws)
        networks.append((frozen, From(source, which * own_draws)))
    dataset, held_out = load_data(study.dataset), None
    if fuse.held_out is not None:
        faults = [networks[0][1](held_out_draw + i * apart) for i in range(fuse.held_out.chips)]
        dataset, held_out = _hold_out(dataset, fuse.held_out, faults, study.seed)
    how = fuse.training
    if fuse.own_faults == "trained" and fuse.bits:
        how = replace(how, objective=OwnFaults(fuse.bits))
    title = f"train {fuse.generator} for {', '.join(config.name for config, _ in bases)}"
    run = Run(path.with_suffix(".partial"), settings, say(title))
    train_generator(networks, transform, dataset, how, fuse.bits, study.seed, held_out, run)


def _own_words(
    folder: StudyFolder,
    fuse: NeuralFuseConfig,
    network: Placement,
    transform: generators.NeuralFuse,
    names: tuple[str, str],
) -> Words:
    """Those of a generator that runs at low voltage itself."""
    assert fuse.bits is not None
    one = turn(transform, 0)
    write_workload(folder, one, transform_settings(folder.study, fuse), *names)
    machine = accelerator(folder.study.accelerators[0])
    placed, bank = place_generator(folder.workload(*names), machine, network, fuse.bits)
    return placed, FaultyNetwork(copy.deepcopy(one), fuse.bits), bank


def _source(study: StudyConfig, fuse: NeuralFuseConfig, words: Sequence[Words], draws: int) -> Source:
    """Training chips at the generator's voltages: faults in the network's words or, of two `words`, in `Both`.

    With `per_voltage`, all `draws` of a step have one voltage.
    """

    def at_voltages(voltages: Sequence[float]) -> Source:
        sources = [_chips(study, voltages, *one) for one in words]
        return sources[0] if len(sources) == 1 else BothSources(*sources)  # type: ignore[return-value, arg-type]

    voltages = fuse.train_voltages or study.voltages
    if fuse.per_voltage is None:
        return at_voltages(voltages)
    return StepsInTurn(tuple(at_voltages((voltage,)) for voltage in voltages), draws)


def _chips(
    study: StudyConfig, voltages: Sequence[float], placed: Placement, network: FaultyNetwork, bank: int
) -> Source:
    memories = [memory_of(study.sram, placed.geometry, form, bank) for form in study.sram.structures]
    return training_source(memories, placed, network, voltages, study.seed)


def _whole(lowered: Lowered, fuse: NeuralFuseConfig, network: str, words: Words, draws: int) -> Source:
    """The same training chips with faults in every memory that the study lowers."""
    study = lowered.study
    placed, faulty, bank = words
    numbering = faulty.numbering(placed.tensors)

    def at_voltages(voltages: tuple[float, ...] | None) -> Source:
        supplies = training_supplies(study, study.accelerators[0], voltages)
        swept = [dict(each)["weights"] for each in supplies]
        sources = []
        for form in study.sram.structures:
            memory = memory_of(study.sram, placed.geometry, form, bank)
            weights = Chips(memory, placed, numbering, swept, study.seed)
            sources.append(TrainingDies(weights, lowered, network, study.accelerators[0], form, supplies))
        return InTurn(tuple(sources))

    if fuse.per_voltage is None:
        return at_voltages(fuse.train_voltages)
    return StepsInTurn(tuple(at_voltages((voltage,)) for voltage in fuse.train_voltages or ()), draws)


def _hold_out(data: Dataset, config: HeldOutSettings, faults: list[Faults], seed: int) -> tuple[Dataset, HeldOut]:
    """The training images without those set apart, and what to watch on these: `faults` of chips that no step draws."""
    if config.images >= len(data.train_y):
        raise InputError("study", "held_out.images", config.images, f"fewer than the {len(data.train_y)} for training")
    order = torch.randperm(len(data.train_y), generator=random(seed, -2))
    apart, rest = order[: config.images], order[config.images :]
    watched = HeldOut(data.train_x[apart], data.train_y[apart], faults, config.every, config.patience)
    return replace(data, train_x=data.train_x[rest], train_y=data.train_y[rest]), watched


def write_workload(folder: StudyFolder, module: nn.Module, settings: object, *names: str) -> None:
    """Write the layers of a module, unless they are there, traced by this code from a module of the same `settings`.

    `names`: of a network, or of a network and the protection whose generator runs before it.
    """
    made_from = digest([settings, names, RESULTS_VERSION])
    if folder.workload_made_from(*names) != made_from:
        if len(names) == 1:
            found = workload_of(module, folder.study.network(names[0]), folder.study)
        else:
            found = trace(module, kind_of(folder.study.dataset).input_shape, name="-".join(names))
        folder.write_workload(found, made_from, *names)


def _record(settings: object) -> dict:
    return {"settings": digest(settings)}


def fresh(path: Path, settings: object) -> bool:
    """Whether `path` was made, by this code, from these settings."""
    return path.is_file() and checkpoint.load(path)[1].get("settings") == digest(settings)


def _found_or_copied(path: Path, settings: object) -> bool:
    """Whether `path` is there now: another file of its folder, made from the same settings under a name that differs
    in other things, is copied."""
    known = [path, *sorted(path.parent.glob("*.safetensors"))]
    made = next((one for one in known if fresh(one, settings)), None)
    if made not in (None, path):
        write_atomic(path, made.read_bytes())
    return made is not None


def network_settings(study: StudyConfig, config: NetworkConfig) -> list:
    """All that a trained network follows from."""
    built = config.build or config.name
    contents = content_hashes(built, config.checkpoint, config.start, own_objective(config.training.objective))
    own = config.given("weights")
    trained_on = [] if config.checkpoint is not None else [training_hash(study.dataset)]
    towards = ["towards", study.metric, *metric_hashes(study.metric)]
    follows = trained_on and config.training.objective is None and metric(study.metric).loss is not cross_entropy
    return [built, own, study.dataset.given(), study.seed, *contents, *trained_on, *(towards if follows else [])]


def generator_settings(study: StudyConfig, bases: list[Base], fuse: NeuralFuseConfig) -> list:
    """All that a trained generator follows from."""
    objective = own_objective(fuse.training.objective) if fuse.training else None
    trained = not fuse.starts_untrained and fuse.checkpoint is None
    whole = trained and sees_activations(study, fuse)
    return [
        fuse.given("weights"),
        [_tensor_hash(network) for _, network in bases],
        study.identity(),
        fuse.train_voltages or study.voltages,
        *content_hashes(fuse.generator, fuse.checkpoint, objective),
        *([training_hash(study.dataset)] if trained else []),
        *([training_supplies(study, study.accelerators[0], fuse.train_voltages)] if whole else []),
    ]


def transform_settings(study: StudyConfig, fuse: NeuralFuseConfig) -> list:
    """What the layers of a generator depend on, whatever its weights are."""
    data, contents = study.dataset.given(), content_hashes(fuse.generator)
    return [fuse.generator, fuse.options, fuse.per_voltage, data, study.seed, *contents]


def _tensor_hash(module: nn.Module) -> str:
    """Hash of every parameter and buffer, names and values."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return total.hexdigest()[:16]
