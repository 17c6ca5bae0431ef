"""From a study file to a folder that tasks can be run in: networks trained, generators trained, workloads traced,
points named.

Every step is skipped when its result lies in the folder and was made from the same settings; so a run that was
killed goes on, and a finished one starts at once.
"""

import copy
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse import networks
from neuralfuse.chips.cost import machine_of
from neuralfuse.chips.stored import check_words, layout_of
from neuralfuse.quantized import checkpoint, evaluate
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.program import compile_network
from neuralfuse.study import artifacts
from neuralfuse.study.arguments import check_options
from neuralfuse.study.config import NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.cost import energy_sources, layer_table
from neuralfuse.study.digest import RESULTS_VERSION, digest
from neuralfuse.study.grid import Point, points_of
from neuralfuse.study.memory import geometry_of, place_weights
from neuralfuse.study.ownership import claim
from neuralfuse.study.trained import (
    Base,
    Say,
    fresh,
    generator_settings,
    make_generator,
    make_network,
    make_program,
    network_settings,
    transform_settings,
    write_workload,
)
from neuralfuse.training import generator, objectives
from neuralfuse.transforms import generators
from neuralfuse.transforms.per_voltage import at, level
from simulator.accelerator import accelerator
from simulator.array.cycles import simulate
from simulator.readers.read import trace
from simulator.workload import Workload
from sram import failure, structure
from sram.errors import InputError
from sram.files import write_atomic
from sram.protection import parse


def check(study: StudyConfig) -> None:
    """Look up every name before anything is written or trained."""
    curve = failure.curve(study.sram.curve)
    try:
        torch.empty(0, device=study.device)
    except (RuntimeError, AssertionError) as error:
        raise InputError("study", "device", study.device, f"one that torch has here ({error})") from None
    for name in study.sram.structures:
        structure.structure(name)
    for name in study.accelerators:
        _check_geometry(study, name)
    too_high = [v for v in study.voltages if v > 2 * curve.nominal]
    if too_high:
        allowed = f"at most {2 * curve.nominal:g}; {curve.name} counts in {curve.unit}, nominal {curve.nominal:g}"
        raise InputError("study", "voltages", too_high[0], allowed)
    artifacts.test_set(study.dataset)
    for config in study.networks:
        check_options(networks.build, config.options, f"networks.{config.name}.options")
        network = artifacts.build_network(config, study)
        objectives.objective(config.training.objective, config.bits)
        if config.checkpoint is not None:
            checkpoint.load_network(network, config.checkpoint)
            FaultyNetwork(network, config.bits, config.per_channel)  # refuses weights that are not finite
        if config.activations == "int8":
            _check_words(config, network, artifacts.test_set(study.dataset)[0][:1])
    for protection in study.protections:
        shield = parse(protection.sram or "none")
        if study.sram.schedule == "paper" and shield.spec != "none":
            allowed = "none with schedule = paper, whose mapping of weights to cells has no memory words"
            raise InputError("study", f"protections.{protection.name}.sram", shield.spec, allowed)
        if shield.needs_regions:
            _check_layers(study, protection)
        if protection.neuralfuse is not None:
            transform = _check_generator(study, protection.name, protection.neuralfuse)
            if protection.neuralfuse.own_faults is not None:
                check_words(transform)
                if study.sram.schedule == "resident" and shield.spec != "none":
                    allowed = "none with schedule = resident and own_faults, whose banks stand apart"
                    raise InputError("study", f"protections.{protection.name}.sram", shield.spec, allowed)


def _check_layers(study: StudyConfig, protection: ProtectionConfig) -> None:
    """Refuse a protection of single layers where they have no words of their own, or go by other names."""
    key, given = f"protections.{protection.name}.sram", "+".join(protection.sram)
    if protection.neuralfuse is not None and protection.neuralfuse.own_faults is not None:
        raise InputError("study", key, given, "none of single layers with own_faults")
    _, shape = artifacts.kind_of(study.dataset)
    for config in study.networks:
        workload = trace(artifacts.build_network(config, study), shape)
        for name in study.accelerators:
            machine = machine_of(name)
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
        geometry_of(study.sram, Workload("nothing", ()), accelerator(name), bits=8)
    except InputError as error:
        if error.where != "geometry":
            raise
        raise InputError("study", f"sram.{error.key}", error.value, error.allowed) from None


def _check_generator(study: StudyConfig, name: str, fuse: NeuralFuseConfig) -> generators.NeuralFuse:
    """Refuse a generator that cannot be built, loaded or trained; returns it, not trained."""
    key = f"protections.{name}.neuralfuse"
    check_options(generators.build, fuse.options, f"{key}.options", free=("width", "identity"))
    transform = artifacts.build_transform(fuse, study)
    if fuse.training is not None:
        generator.objective(fuse.training.objective)
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


def prepare(study: StudyConfig, folder: str | Path, say: Say) -> list[Point]:
    """Fill `folder` with what tasks need and return the study's grid, in the order of results.csv."""
    folder = Path(folder)
    check(study)
    claim(study, folder)
    made = {config.name: (config, make_network(study, config, folder, say)) for config in study.networks}
    for config in study.networks:
        write_workload(made[config.name][1], network_settings(study, config), study, folder, config.name)
        if config.activations == "int8":
            make_program(study, *made[config.name], folder, say)
        for protection in study.protections:
            if protection.neuralfuse is not None:
                bases = [made[name] for name in protection.neuralfuse.trained_on(config.name)]
                transform = make_generator(study, bases, protection, protection.neuralfuse, folder, say)
                transform = at(transform, level(failure.curve(study.sram.curve), study.voltage_floor))
                settings = transform_settings(study, protection.neuralfuse)
                write_workload(transform, settings, study, folder, config.name, protection.name)
                if protection.neuralfuse.calibrate is None:
                    _show_images(
                        study,
                        transform,
                        folder / "images" / f"{artifacts.slug(f'{config.name}-{protection.name}')}.npz",
                    )
    points = points_of(study, folder)
    write_atomic(folder / "layers.csv", layer_table(folder, study).to_csv(index=False))
    provenance = _provenance(study, folder, points)
    write_atomic(folder / "provenance.json", json.dumps(provenance, indent=1))
    return points


def trainings_to_do(study: StudyConfig, folder: str | Path) -> list[str]:
    """Names of what `prepare` would still have to train."""
    folder = Path(folder)
    made: dict[str, Base] = {}
    missing: list[str] = []
    trained_once: set[str] = set()
    for config in study.networks:
        path, settings = artifacts.network_path(folder, config.name), network_settings(study, config)
        if fresh(path, settings):
            network = artifacts.build_network(config, study)
            checkpoint.load_network(network, path)
            made[config.name] = config, network
        elif digest(settings) not in trained_once:  # else it is the network of another name
            missing.append(config.name)
            trained_once.add(digest(settings))
    for config in study.networks:
        for protection in study.protections:
            fuse = protection.neuralfuse
            if fuse is None or fuse.starts_untrained:
                continue
            names = fuse.trained_on(config.name)
            path = artifacts.generator_path(folder, config.name, protection)
            bases = [made[name] for name in names if name in made]
            if len(bases) < len(names) or not fresh(path, generator_settings(study, bases, fuse)):
                missing.append(f"{protection.name} for {', '.join(names)}")
    return list(dict.fromkeys(missing))


def _show_images(study: StudyConfig, transform: generators.NeuralFuse, path: Path) -> None:
    """Eight test images and what the generator makes of them, for the page to draw."""
    images, labels = artifacts.test_set(study.dataset)
    shown = slice(None, None, max(1, len(images) // 8))  # spread: files may be sorted by class
    original = images[shown][:8]
    changed = evaluate.transform(transform, original).numpy()
    arrays = {"original": original.numpy(), "changed": changed, "labels": labels[shown][:8].numpy()}
    write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def _provenance(study: StudyConfig, folder: Path, points: list[Point]) -> dict:
    """What the page says of versions and sources, and the stamp by which workers see that the folder changed."""
    packages = ("torch", "numpy", "numba", "scipy", "pandas")
    unknown = [u for n in study.networks for u in artifacts.read_workload(folder, n.name).unknown]
    return {
        "stamp": digest([asdict(p) for p in points] + [RESULTS_VERSION]),
        "voltage_unit": failure.curve(study.sram.curve).unit,
        "parameters": {
            p.name: sum(tensor.numel() for tensor in artifacts.build_transform(p.neuralfuse, study).parameters())
            for p in study.protections
            if p.neuralfuse
        },
        "versions": {
            "neuralfuse-sim": version("neuralfuse-sim"),
            "results": RESULTS_VERSION,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "notes": {
            "failure curve": f"{study.sram.curve}: {failure.curve(study.sram.curve).source}",
            "rate": "the curve gives the cell fault rate: the share of cells that are faulty",
            "seed": study.seed,
            "operators without a cost": ", ".join(unknown) or "none",
        },
        "energy_sources": energy_sources(folder, study),
    }
