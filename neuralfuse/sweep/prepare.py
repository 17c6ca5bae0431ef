"""From a study file to a folder that tasks can be run in: networks trained, generators trained, workloads traced,
points named.

Every step is skipped when its result lies in the folder and was made from the same settings; so a run that was
killed goes on, and a finished one starts at once.
"""

import copy
import hashlib
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from neuralfuse import baselines, checkpoint, evaluate, generators, training
from neuralfuse.config import (
    HeldOutConfig,
    NetworkConfig,
    NeuralFuseConfig,
    ProtectionConfig,
    StudyConfig,
    digest,
    dump_study,
    load_study,
)
from neuralfuse.cost import energy_sources, layer_table
from neuralfuse.data import Dataset
from neuralfuse.deviceprogram import compile_network
from neuralfuse.faulty import FaultyNetwork
from neuralfuse.networks.files import ModelFile
from neuralfuse.ownfaults import BothSources, OwnFaults, check_words, place_generator
from neuralfuse.pervoltage import at, level, turn
from neuralfuse.quantize import quantize_in_place
from neuralfuse.sources import Faults, Source
from neuralfuse.stored import StepsInTurn, place_weights, training_source
from neuralfuse.sweep import artifacts
from neuralfuse.sweep.task import Point, code_version
from simulator.accelerator import accelerator
from simulator.placement import Placement
from simulator.workload import trace
from sram import failure, structure
from sram.errors import InputError
from sram.files import write_atomic
from sram.protection import parse

UNIT_IMAGES = 256  # of training, whose largest activations are the largest words
FIRST_HELD_OUT_DRAW = 10**9  # more than any training draws
Base = tuple[NetworkConfig, nn.Module]  # a base network and how it is stored
Words = tuple[Placement, FaultyNetwork, int]  # where a network's words lie, and from which bank of a chip on
Say = Callable[[str], Callable[[int, int, dict[str, float]], None]]  # start a named step, get its progress callback


def claim(study: StudyConfig, folder: Path) -> None:
    """Make `folder` this study's, or refuse it: results of two studies never mix. Writes study.yaml."""
    path = folder / "study.yaml"
    if path.is_file():
        other = load_study(path)
        if other.identity() != study.identity():
            mine, theirs = study.model_dump(mode="json"), other.model_dump(mode="json")
            key = next(k for k in mine if k not in _MAY_GROW and mine[k] != theirs[k])
            raise InputError(folder, key, mine[key], f"{theirs[key]!r}, of the study {other.name!r} in this folder")
    elif folder.is_dir() and any(folder.iterdir()):
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:3])
        raise InputError(folder, "--out", names, "a new or empty folder, or one that a study was run in")
    write_atomic(path, dump_study(study))


_MAY_GROW = ("voltages", "chips", "protections", "adaptive", "batch_size")


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
        accelerator(name)
    too_high = [v for v in study.voltages if v > 2 * curve.nominal]
    if too_high:
        allowed = f"at most {2 * curve.nominal:g}; {curve.name} counts in {curve.unit}, nominal {curve.nominal:g}"
        raise InputError("study", "voltages", too_high[0], allowed)
    artifacts.test_set(study.dataset)
    for config in study.networks:
        network = artifacts.build_network(config, study)
        baselines.objective(config.training.get("objective"), config.bits)
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
        if protection.neuralfuse is not None:
            transform = artifacts.build_transform(protection.neuralfuse, study)
            if protection.neuralfuse.own_faults is not None:
                check_words(transform)
                if study.sram.schedule == "resident" and shield.spec != "none":
                    allowed = "none with schedule = resident and own_faults, whose banks stand apart"
                    raise InputError("study", f"protections.{protection.name}.sram", shield.spec, allowed)


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
    networks = {config.name: (config, _network(study, config, folder, say)) for config in study.networks}
    for config in study.networks:
        _trace(networks[config.name][1], config.name, study, folder)
        if config.activations == "int8":
            _program(study, *networks[config.name], folder, say)
        for protection in study.protections:
            if protection.neuralfuse is not None:
                bases = [networks[name] for name in protection.neuralfuse.trained_on(config.name)]
                transform = _generator(study, bases, protection, protection.neuralfuse, folder, say)
                transform = at(transform, level(failure.curve(study.sram.curve), study.voltage_floor))
                _trace(transform, f"{config.name}-{protection.name}", study, folder)
                if protection.neuralfuse.calibrate is None:
                    _show_images(study, transform, folder, f"images-{config.name}-{protection.name}")
    points = points_of(study, folder)
    write_atomic(folder / "layers.csv", layer_table(folder, study).to_csv(index=False))
    write_atomic(folder / "provenance.json", json.dumps(_provenance(study, folder, points), indent=1))
    return points


def _record(settings: object) -> dict:
    return {"settings": digest(settings)}


def _fresh(path: Path, settings: object) -> bool:
    """Whether `path` was made, by this code, from these settings."""
    return path.is_file() and checkpoint.load(path)[1].get("settings") == digest(settings)


def _network_settings(study: StudyConfig, config: NetworkConfig) -> list:
    files = [path for path in (config.name, config.checkpoint) if path is not None and Path(path).is_file()]
    contents = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files]
    return [config.model_dump(mode="json"), study.dataset.model_dump(mode="json"), study.seed, *contents]


def _generator_settings(study: StudyConfig, bases: list[Base], fuse: NeuralFuseConfig) -> list:
    left_out = {"calibrate", "training"} if fuse.starts_untrained else {"calibrate"}  # how is of no matter here
    if fuse.own_faults != "trained":
        left_out.add("own_faults")
    return [
        fuse.model_dump(mode="json", exclude=left_out),
        [_tensor_hash(network) for _, network in bases],
        study.identity(),
        fuse.train_voltages or study.voltages,
    ]


def _network(study: StudyConfig, config: NetworkConfig, folder: Path, say: Say) -> nn.Module:
    """The frozen base network, its weights rounded to words."""
    path = artifacts.network_path(folder, config.name)
    network = artifacts.build_network(config, study)
    settings = _network_settings(study, config)
    if not _fresh(path, settings):
        if config.checkpoint is not None:
            checkpoint.load_network(network, config.checkpoint)
        elif not isinstance(network, ModelFile):  # a file brings its weights
            training.train_network(
                network.to(study.device),
                artifacts.load_data(study.dataset),
                bits=config.bits,
                seed=study.seed,
                checkpoint_path=path.with_suffix(".partial"),
                progress=say(f"train {config.name}"),
                **config.training | {"objective": baselines.objective(config.training.get("objective"), config.bits)},
            )
        quantize_in_place(network.cpu(), config.bits, config.per_channel)
        checkpoint.save(path, network.state_dict(), _record(settings))
        path.with_suffix(".partial").unlink(missing_ok=True)
    checkpoint.load_network(network, path)
    return network.eval()


def _program(study: StudyConfig, config: NetworkConfig, network: nn.Module, folder: Path, say: Say) -> None:
    """Write the network as a device runs it; training images give the units of its activations."""
    path = artifacts.program_path(folder, config.name)
    settings = digest([_network_settings(study, config), _tensor_hash(network), UNIT_IMAGES])
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["settings"] == settings:
        return
    advance = say(f"units of the activations of {config.name}")
    images = artifacts.load_data(study.dataset).train_x
    chosen = torch.randperm(len(images), generator=training.random(study.seed, -3))[:UNIT_IMAGES]
    faulty = FaultyNetwork(copy.deepcopy(network), per_channel=config.per_channel, device=study.device, fold=True)
    made = compile_network(faulty, images[chosen]).to_json()
    write_atomic(path, json.dumps({"settings": settings, "program": made}))
    advance(1, 1, {})


def _generator(
    study: StudyConfig,
    bases: list[Base],
    protection: ProtectionConfig,
    fuse: NeuralFuseConfig,
    folder: Path,
    say: Say,
) -> generators.NeuralFuse:
    """The protection's generator, trained on `bases`, behind x -> clip(x + G(x)), its weights rounded; or untrained,
    where each chip gets its own."""
    transform = artifacts.build_transform(fuse, study)
    path = artifacts.generator_path(folder, bases[0][0].name, protection)
    settings = _generator_settings(study, bases, fuse)
    known = [path, *sorted(path.parent.glob("*.safetensors"))]
    made = next((one for one in known if _fresh(one, settings)), None)
    if made not in (None, path):  # for a protection that differs in other things
        write_atomic(path, made.read_bytes())
    elif made is None:
        if fuse.checkpoint is not None and not fuse.starts_untrained:
            checkpoint.load_network(transform.generator, fuse.checkpoint)
        elif not fuse.starts_untrained:
            _train_generator(study, bases, protection.name, fuse, transform, path, folder, say)
        if fuse.bits is not None:
            quantize_in_place(transform.cpu(), fuse.bits)
        checkpoint.save(path, transform.generator.state_dict(), _record(settings))
        path.with_suffix(".partial").unlink(missing_ok=True)
    checkpoint.load_network(transform.generator, path)
    return transform.eval()


def _train_generator(
    study: StudyConfig,
    bases: list[Base],
    name: str,
    fuse: NeuralFuseConfig,
    transform: generators.NeuralFuse,
    path: Path,
    folder: Path,
    say: Say,
) -> None:
    """EOPM on training chips: other chip numbers than any evaluation uses, all structures of the study in turn."""
    networks, sources = [], []
    draws = len(bases) * fuse.training.get("maps", training.PAPER_MAPS)  # until a network has its turn again
    for config, network in bases:
        faulty = FaultyNetwork(copy.deepcopy(network), config.bits, config.per_channel, study.device, fold=True)
        _trace(network, config.name, study, folder)
        machine = accelerator(study.accelerators[0])
        placed = place_weights(study, artifacts.read_workload(folder, config.name), machine, config.bits)
        networks.append(faulty)
        words = [(placed, faulty, 0)]
        if fuse.own_faults == "trained":
            words.append(_own_words(study, fuse, placed, transform, f"{config.name}-{name}", folder))
        sources.append(_source(study, fuse, words, draws))
    dataset, held_out = artifacts.load_data(study.dataset), None
    if fuse.held_out is not None:
        apart, turns = (draws, len(fuse.train_voltages or ())) if fuse.per_voltage else (1, 1)
        first = FIRST_HELD_OUT_DRAW - FIRST_HELD_OUT_DRAW % (apart * turns)  # chip i has the voltage of step i
        faults = [sources[0](first + i * apart) for i in range(fuse.held_out.chips)]
        dataset, held_out = _hold_out(dataset, fuse.held_out, faults, study.seed)
    own = {"objective": OwnFaults(fuse.bits)} if fuse.own_faults == "trained" and fuse.bits else {}
    training.train_generator(
        networks,
        transform,
        dataset,
        sources,
        held_out=held_out,
        bits=fuse.bits,
        seed=study.seed,
        checkpoint_path=path.with_suffix(".partial"),
        progress=say(f"train {fuse.generator} for {', '.join(config.name for config, _ in bases)}"),
        **fuse.training | own,
    )


def _own_words(
    study: StudyConfig,
    fuse: NeuralFuseConfig,
    network: Placement,
    transform: generators.NeuralFuse,
    name: str,
    folder: Path,
) -> Words:
    """Those of a generator that runs at low voltage itself."""
    assert fuse.bits is not None
    one = turn(transform, 0)
    _trace(one, name, study, folder)
    workload, machine = artifacts.read_workload(folder, name), accelerator(study.accelerators[0])
    placed, bank = place_generator(workload, machine, network, fuse.bits)
    return placed, FaultyNetwork(copy.deepcopy(one), fuse.bits), bank


def _source(study: StudyConfig, fuse: NeuralFuseConfig, words: Sequence[Words], draws: int) -> Source:
    """Training chips at the generator's voltages: faults in the network's words or, of two `words`, in `Both`.

    With `per_voltage`, all `draws` of a step have one voltage.
    """

    def at_voltages(voltages: Sequence[float]) -> Source:
        sources = [training_source(study, placed, network, voltages, bank) for placed, network, bank in words]
        return sources[0] if len(sources) == 1 else BothSources(*sources)  # type: ignore[return-value]

    voltages = fuse.train_voltages or study.voltages
    if fuse.per_voltage is None:
        return at_voltages(voltages)
    return StepsInTurn(tuple(at_voltages((voltage,)) for voltage in voltages), draws)


def _hold_out(
    data: Dataset, config: HeldOutConfig, faults: list[Faults], seed: int
) -> tuple[Dataset, training.HeldOut]:
    """The training images without those set apart, and what to watch on these: `faults` of chips that no step draws."""
    if config.images >= len(data.train_y):
        raise InputError("study", "held_out.images", config.images, f"fewer than the {len(data.train_y)} for training")
    order = torch.randperm(len(data.train_y), generator=training.random(seed, -2))
    apart, rest = order[: config.images], order[config.images :]
    watched = training.HeldOut(data.train_x[apart], data.train_y[apart], faults, config.every, config.patience)
    return replace(data, train_x=data.train_x[rest], train_y=data.train_y[rest]), watched


def trainings_to_do(study: StudyConfig, folder: str | Path) -> list[str]:
    """Names of what `prepare` would still have to train."""
    folder = Path(folder)
    made: dict[str, Base] = {}
    missing: list[str] = []
    for config in study.networks:
        path = artifacts.network_path(folder, config.name)
        if _fresh(path, _network_settings(study, config)):
            network = artifacts.build_network(config, study)
            checkpoint.load_network(network, path)
            made[config.name] = config, network
        else:
            missing.append(config.name)
    for config in study.networks:
        for protection in study.protections:
            fuse = protection.neuralfuse
            if fuse is None or fuse.starts_untrained:
                continue
            names = fuse.trained_on(config.name)
            path = artifacts.generator_path(folder, config.name, protection)
            bases = [made[name] for name in names if name in made]
            if len(bases) < len(names) or not _fresh(path, _generator_settings(study, bases, fuse)):
                missing.append(f"{protection.name} for {', '.join(names)}")
    return list(dict.fromkeys(missing))


def _tensor_hash(module: nn.Module) -> str:
    """Hash of every parameter and buffer, names and values."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return total.hexdigest()[:16]


def _trace(module: nn.Module, name: str, study: StudyConfig, folder: Path) -> None:
    """Write the layers of a module, unless they are there; they depend on its shapes alone."""
    path = artifacts.workload_path(folder, name)
    if not path.is_file():
        _, shape = artifacts.kind_of(study.dataset)
        write_atomic(path, artifacts.workload_text(trace(module, shape, name=name)))


def _show_images(study: StudyConfig, transform: generators.NeuralFuse, folder: Path, name: str) -> None:
    """Eight test images beside what the generator makes of them."""
    if (folder / "plots" / f"{name}.svg").is_file():
        return
    from neuralfuse import plots

    images, labels = artifacts.test_set(study.dataset)
    shown = slice(None, None, max(1, len(images) // 8))  # spread: files may be sorted by class
    original = images[shown][:8]
    changed = evaluate.transform(transform, original).numpy()
    plots.save(plots.images(original.numpy(), changed, labels[shown][:8].tolist()), folder / "plots", name)


def _file_hash(path: Path) -> str:
    """Hash of the tensors of a checkpoint."""
    total = hashlib.sha256()
    for name, tensor in sorted(checkpoint.load(path)[0].items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return total.hexdigest()[:16]


def points_of(study: StudyConfig, folder: str | Path) -> list[Point]:
    """The grid of a prepared folder, each point with the hash of everything that its names stand for."""
    folder = Path(folder)
    images, labels = artifacts.test_set(study.dataset)
    total = hashlib.sha256(images.numpy().tobytes())
    total.update(labels.numpy().tobytes())
    curve = failure.curve(study.sram.curve)
    common = {
        "data": total.hexdigest(),
        "curve": curve.to_dict(),
        "sram": study.sram.model_dump(mode="json", exclude={"structures"}),
        "seed": study.seed,
        "device": study.device,
        "batch": study.batch_size,  # float sums depend on it in the last bit
    }
    points = []
    for network in study.networks:
        for machine in study.accelerators:
            for form in study.sram.structures:
                for protection in study.protections:
                    setup = common | {
                        "network": [
                            _file_hash(artifacts.network_path(folder, network.name)),
                            network.bits,
                            network.per_channel,
                            _program_hash(folder, network),
                        ],
                        "accelerator": asdict(accelerator(machine)),
                        "structure": asdict(structure.structure(form)),
                        "protection": protection.model_dump(mode="json"),
                        "generator": _generator_hash(folder, network.name, protection),
                        "calibrated_at": _calibrated_at(study, protection),
                    }
                    names = (network.name, study.dataset.name, machine, curve.name, form, protection.name)
                    points.append(Point(*names, digest(setup)))
    return points


def _program_hash(folder: Path, network: NetworkConfig) -> str | None:
    if network.activations == "float":
        return None
    return digest(artifacts.read_program(folder, network.name).to_json())


def _generator_hash(folder: Path, network: str, protection: ProtectionConfig) -> str | None:
    return _file_hash(artifacts.generator_path(folder, network, protection)) if protection.neuralfuse else None


def _calibrated_at(study: StudyConfig, protection: ProtectionConfig) -> tuple[float, ...] | None:
    """The voltages that a chip's one transform depends on; None where each voltage has its own, or none is made."""
    found = protection.neuralfuse.calibrate if protection.neuralfuse else None
    return None if found is None or found.at == "each" else found.voltages(study.voltages[0], study.voltages)


def _provenance(study: StudyConfig, folder: Path, points: list[Point]) -> dict:
    """What the page says of versions and sources, and the stamp by which workers see that the folder changed."""
    packages = ("torch", "numpy", "numba", "scipy", "pandas")
    unknown = [u for n in study.networks for u in artifacts.read_workload(folder, n.name).unknown]
    return {
        "stamp": digest([asdict(p) for p in points] + [code_version()]),
        "voltage_unit": failure.curve(study.sram.curve).unit,
        "parameters": {
            p.name: sum(tensor.numel() for tensor in artifacts.build_transform(p.neuralfuse, study).parameters())
            for p in study.protections
            if p.neuralfuse
        },
        "versions": {
            "neuralfuse-sim": version("neuralfuse-sim"),
            "code": code_version(),
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
