"""The grid of a prepared study folder, and the hash of everything that its names stand for."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralfuse import data
from neuralfuse.chips.memory import maps_of
from neuralfuse.data.inputs import content
from neuralfuse.quantized import checkpoint
from neuralfuse.results.scale import ACCURACY
from neuralfuse.study.config import MEASURED, NetworkConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.data import content_hashes, metric_hashes, test_set, training_hash
from neuralfuse.study.digest import digest, given, unhashed
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.memory import sees_activations
from neuralfuse.study.supplies import roles_of
from simulator.accelerator import accelerator
from sram import structure
from sram.protection import spec


@dataclass(frozen=True)
class Point:
    """Where in the grid: everything but chip and operating point. `setup` is the hash of what the names stand for."""

    network: str
    dataset: str
    accelerator: str
    curve: str
    structure: str
    protection: str
    setup: str


def points_of(folder: StudyFolder) -> list[Point]:
    """The grid of a prepared folder, each point with the hash of everything that its names stand for.

    What is not prepared yet has no hash: no row was ever measured at such a point.
    """
    study = folder.study
    images, labels = test_set(study.dataset)
    total = hashlib.sha256(content(images))
    total.update(labels.numpy().tobytes())
    curve = study.curve
    common = {
        "data": total.hexdigest(),
        "curve": {key: value for key, value in curve.to_dict().items() if key not in unhashed(curve)},
        "sram": study.sram.given(),
        **({"memories": study.given()["memories"]} if study.memories else {}),
        "seed": study.seed,
        "device": study.device,
        "batch": study.batch_size,  # float sums depend on it in the last bit
        **({"seen": [study.dataset.mean, study.dataset.std]} if study.dataset.mean else {}),
        **_metric_hashes(study),
        **({"kept_on": training_hash(study.dataset)} if "cache" in roles_of(study) else {}),
        **_map_hashes(study),
    }
    points = []
    for network in study.networks:
        for machine in study.accelerators:
            for form in study.forms:
                for protection in study.protections_of(network.name):
                    setup = common | {
                        "network": _network_hashes(folder, network),
                        "accelerator": given(accelerator(machine)),
                        "structure": None if form == MEASURED else given(structure.structure(form)),
                        "protection": protection.given(),
                        "generator": _generator_hashes(folder, network.name, protection),
                        "calibrated_at": _calibrated_at(study, protection),
                        **_calibrated_on(study, protection),
                        **_second_hashes(folder, protection),
                        **_plugin_hashes(study, protection),
                    }
                    names = (network.name, study.dataset.name, machine, curve.name, form, protection.name)
                    points.append(Point(*names, digest(setup)))
    return points


def _map_hashes(study: StudyConfig) -> dict[str, list[str]]:
    """Of the measured chips, memory by memory; empty where they are generated."""
    found = {"maps": study.sram.map} | {f"maps of {name}": own.map for name, own in study.memories.items()}
    return {
        key: [hashlib.sha256(path.read_bytes()).hexdigest() for path in maps_of(where)]
        for key, where in found.items()
        if where is not None
    }


def _metric_hashes(study: StudyConfig) -> dict[str, list[str]]:
    """Of what scores the answers, with the source where it is one's own; empty where that is accuracy."""
    if study.metric == ACCURACY.name:
        return {}
    return {"metric": [study.metric, *metric_hashes(study.metric)]}


def _plugin_hashes(study: StudyConfig, protection: ProtectionConfig) -> dict[str, list[str]]:
    """Of the sources of datasets and SRAM protections that are not built in; empty where all are."""
    files = [*data.sources(study.dataset.name), *spec.sources(protection.sram or "none")]
    return {"plugins": content_hashes(*files)} if files else {}


def _file_hash(path: Path) -> str | None:
    """Hash of the tensors of a checkpoint."""
    if not path.is_file():
        return None
    total = hashlib.sha256()
    for name, tensor in sorted(checkpoint.load(path)[0].items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return total.hexdigest()[:16]


def _network_hashes(folder: StudyFolder, network: NetworkConfig) -> list:
    """Of its words, how they are read, its layers, and the files that it was made from."""
    return [
        _file_hash(folder.network_file(network.name)),
        network.bits,
        network.per_channel,
        _program_hash(folder, network),
        _workload_hash(folder, network.name),
        content_hashes(network.build or network.name, network.checkpoint),
        *([network.output] if network.output is not None else []),
        *([{"inputs": network.inputs}] if network.inputs is not None else []),
        *([network.format, network.group] if network.format or network.group else []),
    ]


def _second_hashes(folder: StudyFolder, protection: ProtectionConfig) -> dict[str, object]:
    """Of the second network, and of the training images where its fusion is fitted to them; empty without one."""
    if protection.second is None:
        return {}
    study = folder.study
    fitted = {"fitted_on": training_hash(study.dataset)} if protection.fused is not None else {}
    return {"second": _network_hashes(folder, study.network(protection.second)), **fitted}


def _program_hash(folder: StudyFolder, network: NetworkConfig) -> str | None:
    if network.activations == "float" or not folder.program_file(network.name).is_file():
        return None
    return digest(folder.program(network.name).to_json())


def _generator_hashes(folder: StudyFolder, network: str, protection: ProtectionConfig) -> list | None:
    """Of its weights, its layers, and the files that it was made from; None where there is no generator."""
    fuse = protection.neuralfuse
    if fuse is None:
        return None
    return [
        _file_hash(folder.generator_file(network, protection)),
        _workload_hash(folder, network, protection.name),
        content_hashes(fuse.generator, fuse.checkpoint),
    ]


def _workload_hash(folder: StudyFolder, network: str, protection: str | None = None) -> str | None:
    if not folder.workload_file(network, protection).is_file():
        return None
    return digest(given(folder.workload(network, protection)))


def _calibrated_on(study: StudyConfig, protection: ProtectionConfig) -> dict[str, object]:
    """The training images, where each chip's transform or statistics are fitted to them; and what falls with the
    weights, where a transform is fitted with the faults of all memories."""
    fuse = protection.neuralfuse
    calibrated = fuse is not None and fuse.calibrate is not None
    if not calibrated and protection.batchnorm is None:
        return {}
    found: dict[str, object] = {"training": training_hash(study.dataset)}
    if fuse is not None and calibrated and sees_activations(study, fuse):
        found["with_all_memories"] = sorted(study.together)
    return found


def _calibrated_at(study: StudyConfig, protection: ProtectionConfig) -> tuple[float, ...] | None:
    """The voltages that a chip's one transform depends on; None where each voltage has its own, or none is made."""
    found = protection.neuralfuse.calibrate if protection.neuralfuse else None
    return None if found is None or found.at == "each" else found.voltages(study.voltages[0], study.voltages)
