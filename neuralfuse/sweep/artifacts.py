"""What a study folder holds besides rows: trained networks, generators, their workloads; where each lies and how it
is read."""

import functools
import json
import re
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralfuse import data, generators, networks
from neuralfuse.config import DatasetConfig, NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.pervoltage import PerVoltage, level
from simulator.device.program import Program
from simulator.workload import Layer, Workload
from sram import failure
from sram.errors import InputError


def slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name)


def network_path(folder: Path, network: str) -> Path:
    return folder / "networks" / f"{slug(network)}.safetensors"


def program_path(folder: Path, network: str) -> Path:
    return folder / "networks" / f"{slug(network)}.program.json"


def read_program(folder: Path, network: str) -> Program:
    """A network as a device runs it, its activations' units included."""
    return Program.from_json(json.loads(program_path(folder, network).read_text(encoding="utf-8"))["program"])


def generator_path(folder: Path, network: str, protection: ProtectionConfig) -> Path:
    """The generator that a protection puts before `network`: one for all networks where it has surrogates."""
    assert protection.neuralfuse is not None
    trained_on = "+".join(protection.neuralfuse.trained_on(network))
    return folder / "generators" / f"{slug(trained_on)}-{slug(protection.name)}.safetensors"


def workload_path(folder: Path, name: str) -> Path:
    return folder / "workloads" / f"{slug(name)}.json"


def workload_text(workload: Workload) -> str:
    """A workload as JSON."""
    return json.dumps(asdict(workload))


def read_workload(folder: Path, name: str) -> Workload:
    """Inverse of `workload_text`: a worker needs the layers and not the tracer."""
    raw = json.loads(workload_path(folder, name).read_text(encoding="utf-8"))
    layers = tuple(Layer(**_tuples(layer)) for layer in raw.pop("layers"))
    return Workload(layers=layers, **_tuples(raw))


def _tuples(record: dict) -> dict:
    """JSON knows lists only."""

    def frozen(value):
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {key: frozen(value) for key, value in record.items()}


def load_data(config: DatasetConfig) -> data.Dataset:
    return data.load(config.name, config.root)


@functools.cache
def kind_of(config: DatasetConfig) -> tuple[int, tuple[int, int, int]]:
    """(classes, shape of an image): a worker asks for each network and each chip's transform, but reads files once."""
    dataset = load_data(config)
    return dataset.num_classes, dataset.input_shape


def test_set(config: DatasetConfig) -> tuple[Tensor, Tensor]:
    """Images and labels that results are measured on."""
    dataset = load_data(config)
    if config.test_images is not None and config.test_images > len(dataset.test_y):
        raise InputError("study", "dataset.test_images", config.test_images, f"at most {len(dataset.test_y)}")
    if config.test_images is None:
        return dataset.test_x, dataset.test_y
    # Not the first: a folder of images, or a file made from one, is sorted by class.
    chosen = torch.randperm(len(dataset.test_y), generator=torch.Generator().manual_seed(0))[: config.test_images]
    return dataset.test_x[chosen], dataset.test_y[chosen]


def build_network(config: NetworkConfig, study: StudyConfig) -> nn.Module:
    """The base network, not trained, for the study's data."""
    classes, (channels, _, _) = kind_of(study.dataset)
    return networks.build(config.build or config.name, classes, channels, seed=study.seed, **config.options)


def build_transform(fuse: NeuralFuseConfig, study: StudyConfig) -> generators.NeuralFuse:
    """The input transform, not trained, for the study's images; with `per_voltage` all of its generators."""
    _, (channels, height, width) = kind_of(study.dataset)

    def make() -> nn.Module:
        return generators.build(fuse.generator, channels, seed=study.seed, size=(height, width), **fuse.options)

    if fuse.per_voltage is None:
        return generators.NeuralFuse(make())
    curve = failure.curve(study.sram.curve)
    levels = [level(curve, voltage) for voltage in fuse.train_voltages or ()]
    return generators.NeuralFuse(PerVoltage(make, levels, fuse.per_voltage))
