"""What a study folder holds besides rows: trained networks, generators, their workloads; where each lies and how it
is read."""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralfuse import data, networks
from neuralfuse.study.config import DatasetConfig, NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.digest import digest
from neuralfuse.transforms import generators
from neuralfuse.transforms.per_voltage import PerVoltage, level
from simulator.device.program import Program
from simulator.workload import Layer, Workload
from sram import failure, plugins
from sram.errors import InputError


def slug(name: str) -> str:
    """A name as a file's; where other names would give the same, with a digest.

    >>> slug("resnet18-imagenet"), slug("w<4"), slug("w>4")
    ('resnet18-imagenet', 'w_4~25707f5f', 'w_4~838139d2')
    """
    return _file_name(name, [name])


def _file_name(joined: str, names: list[str], joined_otherwise: bool = False) -> str:
    """`names` joined to one; `joined_otherwise`: if other names give the same."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", joined)
    return plain if plain == joined and not joined_otherwise else f"{plain}~{digest(names)[:8]}"


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
    return folder / "generators" / generator_file(protection.neuralfuse.trained_on(network), protection.name)


def generator_file(trained_on: Sequence[str], name: str) -> str:
    """What the generator of protection `name`, trained before these networks, is called in its folder.

    >>> generator_file(["resnet18"], "ConvS"), generator_file(["resnet18"], "ConvL/2")
    ('resnet18-ConvS.safetensors', 'resnet18-ConvL_2~4d026b46.safetensors')
    """
    joined_otherwise = "-" in name or any("+" in one for one in trained_on)  # a and b-c, or a-b and c; a+b, or a and b
    return _file_name(f"{'+'.join(trained_on)}-{name}", [*trained_on, name], joined_otherwise) + ".safetensors"


def workload_path(folder: Path, network: str, protection: str | None = None) -> Path:
    """Of a network, or of the generator that a protection puts before it."""
    where = folder / "workloads"
    if protection is None:
        return where / f"{slug(network)}.json"
    return where / slug(network) / f"{slug(protection)}.json"  # NETWORK-PROTECTION may be another network's name


def workload_text(workload: Workload, made_from: str) -> str:
    """A workload as JSON, with the digest of what it was traced from."""
    return json.dumps({"made_from": made_from, **asdict(workload)})


def read_workload(folder: Path, network: str, protection: str | None = None) -> Workload:
    """Inverse of `workload_text`: a worker needs the layers and not the tracer."""
    raw = json.loads(workload_path(folder, network, protection).read_text(encoding="utf-8"))
    raw.pop("made_from", None)
    layers = tuple(Layer(**_tuples(layer)) for layer in raw.pop("layers"))
    return Workload(layers=layers, **_tuples(raw))


def content_hashes(*names: str | None) -> list[str]:
    """SHA-256 of the files behind the names of networks, generators and checkpoints, so that what is made from a file
    follows its content: a checkpoint or model file itself; the source of a `package.module:callable`, of its module and
    of the one that defines it. Built-in names have none.

    >>> content_hashes("resnet18", None), len(content_hashes("neuralfuse.networks:build"))
    ([], 1)
    """
    files: dict[str, None] = {}
    for name in names:
        if name is None:
            continue
        if Path(name).is_file():
            files[name] = None
        elif ":" in name:
            made = plugins.imported(name, "study")
            files |= dict.fromkeys(plugins.sources(made, name.partition(":")[0]))
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]


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
