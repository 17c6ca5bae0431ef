"""Every name and number of a study looked up before anything is written or trained."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuralfuse import networks
from neuralfuse.chips.memory import maps_of
from neuralfuse.chips.stored import check_words, layout_of, not_in_weak_cells, place_on, unlisted_parameters
from neuralfuse.data.inputs import Inputs
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.program import compile_network
from neuralfuse.study.arguments import check_options
from neuralfuse.study.check_supplies import check_supplies
from neuralfuse.study.check_task import check_answers, check_task
from neuralfuse.study.config import NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.data import build_network, build_transform, kind_of, test_set, workload_of
from neuralfuse.study.kept import check_keeps
from neuralfuse.study.memory import mapped_cells, place_weights
from neuralfuse.study.supplies import roles_of
from neuralfuse.training import generator, objectives, painting
from neuralfuse.transforms import generators, per_voltage
from simulator.accelerator import accelerator, with_weight_rail
from simulator.array.cycles import simulate
from simulator.operating_point import nominal_on
from simulator.workload import Workload
from sram import faultmap, structure
from sram.errors import InputError
from sram.protection import parse


def check(study: StudyConfig) -> None:
    """Look up every name before anything is written or trained. Raises InputError."""
    _check_grid(study)
    check_supplies(study)
    check_task(study)
    _check_maps(study)
    images = test_set(study.dataset)[0][:2].clone()  # to see what comes out
    for config in study.networks:
        _check_network(study, config, images)
    for protection in study.protections:
        _check_protection(study, protection, images)


def _check_grid(study: StudyConfig) -> None:
    """Refuse a device, a structure, an accelerator or a voltage that there is not."""
    curve = study.curve
    try:
        torch.empty(1, device=study.device).item()  # of `meta` there are no numbers
    except (RuntimeError, AssertionError) as error:
        raise InputError("study", "device", study.device, f"one that torch has here ({error})") from None
    for name in study.sram.structures:
        structure.structure(name)
    for name in study.accelerators:
        _check_geometry(study, name)
        nominal = nominal_on(accelerator(name), curve)
        if study.voltages[0] > 2 * nominal:
            allowed = f"at most {2 * nominal:g}; {curve.name} counts in {curve.unit}, nominal {nominal:g} on {name}"
            raise InputError("study", "voltages", study.voltages[0], allowed)


def _check_maps(study: StudyConfig) -> None:
    """Refuse measured chips that cannot be the study's."""
    where = study.sram.map
    if where is None:
        return
    maps = maps_of(where)
    if study.chips.numbers.stop > len(maps):
        raise InputError(
            "study", "chips.evaluation", study.chips.evaluation, f"at most {len(maps)}, the maps of {where}"
        )
    if study.sram.noise:
        raise InputError("study", "sram.noise", study.sram.noise, "0 with sram.map, whose chips have their own")
    lowest = study.voltage_floor - study.sram.drift
    for path in maps:
        found = faultmap.load(path)
        if found.curve.unit != study.curve.unit:
            allowed = f"in {study.curve.unit}, as {study.sram.curve}, not in {found.curve.unit}"
            raise InputError(path, "curve.unit", found.curve.unit, allowed)
        if not found.reaches(lowest):
            allowed = f"at least {found.voltage_floor:g}, where {path} ends" + (", and drift" * bool(study.sram.drift))
            raise InputError("study", "voltages", study.voltage_floor, allowed)
        for config in study.networks:
            workload = workload_of(build_network(config, study), config, study)
            for name in study.accelerators:
                machine, sram = accelerator(name), study.sram
                place_on(found, workload, machine, sram.schedule, config.bits, sram.weights_per_cell)


def _check_network(study: StudyConfig, config: NetworkConfig, images: Tensor) -> None:
    """Refuse a network that cannot be built, filled with its weights, trained or put into words as the study says."""
    check_options(networks.build, config.options, f"networks.{config.name}.options")
    network = build_network(config, study)
    _check_outputs(study, config, network, images)
    objectives.objective(config.training.objective, config.bits)
    if (given_weights := config.checkpoint or config.start) is not None:
        checkpoint.load_network(network, given_weights)
    if unlisted_parameters(network):  # refuses those that are fetched as weights; to trace others takes time
        not_in_weak_cells(network, workload_of(network, config, study))
    FaultyNetwork(network, config.words)  # refuses weights that are not finite, or none
    _check_statistics(study, config, network)
    if "cache" in roles_of(study):
        check_keeps(study, config.name, copy.deepcopy(network), images)
    if config.activations == "int8":
        _check_words(config, network, images[:1])
    most = 8 if study.sram.schedule == "paper" else study.sram.word_bits
    if config.bits > most:
        allowed = f"at most {most}, with sram.schedule {study.sram.schedule} and word_bits {study.sram.word_bits}"
        raise InputError("study", f"networks.{config.name}.bits", config.bits, allowed)
    for machine in map(accelerator, study.accelerators):
        if machine.cores > 1:  # layers may be cut by samples
            place_weights(study.sram, workload_of(network, config, study), machine, config.bits)


def _check_protection(study: StudyConfig, protection: ProtectionConfig, images: Tensor) -> None:
    """Refuse a generator, or a chain in the memory, that does not fit the study's networks and schedule."""
    shield = parse(protection.sram or "none")
    if protection.fused is not None and protection.fused.fit == "per_lot":
        if study.sram.map is not None or any(own.map is not None for own in study.memories.values()):
            allowed = "per_chip where chips are measured (map), for there are none to train on"
            raise InputError("study", f"protections.{protection.name}.fused.fit", "per_lot", allowed)
    if study.sram.schedule == "paper" and shield.spec != "none":
        allowed = "none with schedule = paper, whose mapping of weights to cells has no memory words"
        raise InputError("study", f"protections.{protection.name}.sram", shield.spec, allowed)
    if shield.needs_regions:
        _check_layers(study, protection)
    if protection.neuralfuse is not None:
        transform = _check_generator(study, protection.name, protection.neuralfuse, images)
        if protection.neuralfuse.own_faults is not None:
            check_words(transform)
            if study.sram.schedule == "resident" and shield.spec != "none":
                allowed = "none with schedule = resident and own_faults, whose banks stand apart"
                raise InputError("study", f"protections.{protection.name}.sram", shield.spec, allowed)


def _check_outputs(study: StudyConfig, config: NetworkConfig, network: nn.Module, images: Tensor) -> None:
    """Refuse a network that takes no images of the dataset, or gives what the metric cannot score."""
    key = f"networks.{config.name}"
    check_answers(study, key, _on_images(key, network, images))


def _on_images(key: str, network: nn.Module, images: Tensor) -> object:
    """What a module gives for images. InputError with whatever it says where it does not take them."""
    try:
        with torch.no_grad():
            return network.eval()(images)
    except InputError:  # which says more: a network of `output` that gives no such one
        raise
    except Exception as error:  # of code of anybody's
        reason = f"{type(error).__name__}: {error}"
        raise InputError("study", key, reason, f"a network that takes {_called(images)}") from error


def _called(inputs: Tensor | Inputs) -> str:
    if isinstance(inputs, Inputs):
        return ", ".join(f"{name}: {_called(part)}" for name, part in inputs.parts.items())
    kind = "images" if inputs.dim() == 4 else str(inputs.dtype).removeprefix("torch.")
    return f"{kind} {list(inputs.shape[1:])}"


def _check_statistics(study: StudyConfig, config: NetworkConfig, network: nn.Module) -> None:
    """Refuse statistics of the chip's own where a network has none, or none of its own to change."""
    has_some = any(isinstance(module, _BatchNorm) for module in network.modules())
    for protection in study.protections:
        if protection.batchnorm is not None and not (has_some and config.activations == "float"):
            allowed = "networks with BatchNorm and activations float"
            raise InputError("study", f"protections.{protection.name}.batchnorm", config.name, allowed)


def _check_layers(study: StudyConfig, protection: ProtectionConfig) -> None:
    """Refuse a protection of single layers where they have no words of their own, or go by other names."""
    key, given = f"protections.{protection.name}.sram", "+".join(protection.sram)
    if protection.neuralfuse is not None and protection.neuralfuse.own_faults is not None:
        raise InputError("study", key, given, "none of single layers with own_faults")
    for config in study.networks:
        workload = workload_of(build_network(config, study), config, study)
        for name in study.accelerators:
            machine = accelerator(name)
            placed = place_weights(study.sram, workload, machine, config.bits)
            layout = layout_of(placed, simulate(workload, machine))
            if not layout.regions:
                allowed = f"schedule = resident for single layers: {config.name} passes through the buffer of {name}"
                raise InputError("study", key, given, allowed)
            try:
                parse(protection.sram, layout)
            except InputError as error:
                allowed = f"layers of {config.name}: {error.allowed}"
                raise InputError("study", key, error.value, allowed) from None


def _check_geometry(study: StudyConfig, name: str) -> None:
    """Refuse arrays that the accelerator's weight memory cannot be made of."""
    try:
        mapped_cells(study.sram, Workload("nothing", ()), with_weight_rail(accelerator(name)), bits=8)
    except InputError as error:
        if error.where != "geometry":
            raise
        raise InputError("study", f"sram.{error.key}", error.value, error.allowed) from None


def _check_generator(study: StudyConfig, name: str, fuse: NeuralFuseConfig, images: Tensor) -> generators.NeuralFuse:
    """Refuse a generator that cannot be built, loaded or trained; returns it, not trained."""
    key = f"protections.{name}.neuralfuse"
    check_options(generators.build, fuse.options, f"{key}.options", free=("width", "identity"))
    transform = build_transform(fuse, study)
    changed = _on_images(key, per_voltage.turn(transform, 0), images)
    if not isinstance(changed, Tensor) or changed.shape != images.shape:
        what = list(changed.shape[1:]) if isinstance(changed, Tensor) else f"a {type(changed).__name__}"
        raise InputError("study", f"{key} output", what, f"images like those given: {list(images.shape[1:])}")
    if fuse.training is not None:
        generator.objective(fuse.training.objective)
        if fuse.training.class_steps:
            painting.Trunk(transform, images, kind_of(study.dataset).classes)
    if fuse.starts_untrained:
        return transform
    if fuse.checkpoint is not None:
        checkpoint.load_network(transform.generator, fuse.checkpoint)
    elif fuse.training is None:
        raise InputError("study", f"{key}.training.steps", None, "this key is required")
    return transform


def _check_words(config: NetworkConfig, network: nn.Module, image: Tensor) -> None:
    """Refuse activations of words where no device could run the network."""
    try:
        compile_network(FaultyNetwork(copy.deepcopy(network)), image)
    except InputError as error:
        key, allowed = f"networks.{config.name}.activations", f"float; int8 is for {error.allowed}"
        raise InputError("study", key, f"int8 for {error.key}, {error.value}", allowed) from None
