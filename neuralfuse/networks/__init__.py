"""Base networks: by name, by a user's import path, or from a model file."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from neuralfuse.networks import chardecoder, files, mlperf_tiny, mobilenet, recurrent, resnet, vgg, vit
from sram.errors import InputError
from sram.plugins import imported

# The paper's ten (CIFAR and ImageNet variants), one between, small ones that two cores can train, and MLPerf Tiny's.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet18-imagenet": partial(resnet.resnet18, imagenet=True),
    "resnet34-imagenet": partial(resnet.resnet34, imagenet=True),
    "resnet50-imagenet": partial(resnet.resnet50, imagenet=True),
    **{f"vgg{depth}": partial(vgg.VGG, depth) for depth in vgg.CONFIGURATIONS},
    **{f"vgg{depth}-imagenet": partial(vgg.VGG, depth, imagenet=True) for depth in vgg.CONFIGURATIONS},
    "resnet8": partial(resnet.small, blocks=1),
    "resnet14": partial(resnet.small, blocks=2),
    "resnet20": partial(resnet.small, blocks=3),
    "mobilenetv2": mobilenet.MobileNetV2,
    "vit-tiny": vit.ViT,
    "chardecoder": chardecoder.CharDecoder,
    "lstm": recurrent.LSTM,
    "mlperf-tiny-ic": mlperf_tiny.resnet8,
    "mlperf-tiny-kws": mlperf_tiny.ds_cnn,
    "mlperf-tiny-vww": mlperf_tiny.mobilenet_v1,
    "mlperf-tiny-ad": mlperf_tiny.autoencoder,
}
# Shape of a sample, and outputs, of MLPerf Tiny's; all others are for colour images of ten classes.
MLPERF_TINY: dict[str, tuple[tuple[int, ...], int]] = {
    "mlperf-tiny-ic": ((3, 32, 32), 10),
    "mlperf-tiny-kws": ((1, 49, 10), 12),
    "mlperf-tiny-vww": ((3, 96, 96), 2),
    "mlperf-tiny-ad": ((640,), 640),
}


MOST_WEIGHTS = 2**28  # 1 GB of them; vgg19-imagenet has half as many


def names() -> list[str]:
    """Names that `build` knows, besides import paths and model files.

    >>> "resnet18" in names()
    True
    """
    return sorted(NETWORKS)


def bounded(where: str, make: Callable[[], nn.Module]) -> None:
    """Refuse a network of more weights than MOST_WEIGHTS before there is any memory for them."""
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"), torch.random.fork_rng(devices=[]):
            sizes = [parameter.numel() for parameter in make().parameters()]
    except RuntimeError as error:  # more bytes than torch can count
        raise InputError(where, "options", str(error)[:200], f"at most {MOST_WEIGHTS} weights") from None
    except (OverflowError, ValueError, TypeError):
        return  # what is wrong with the options it says when it is built
    if not all(sizes) or sum(sizes) > MOST_WEIGHTS:
        raise InputError(where, "weights", sum(sizes), f"1 or more in each layer, {MOST_WEIGHTS} in all: another width")


def build(
    name: str, num_classes: int | None = None, in_channels: int | None = None, seed: int = 0, **options: Any
) -> nn.Module:
    """Return a network: one of `names()`, `package.module:callable`, or a trained one from a .pt2 or .onnx file.

    The first two are called with `num_classes`, `in_channels` and `options` (small residual networks take `width`,
    say), and freshly initialised, a function of the seed alone. What is left out of the first two is 10 and 3, or
    what MLPerf Tiny has for the network. An unknown name is an InputError.

    >>> sum(p.numel() for p in build("resnet8", in_channels=1).parameters())
    77754
    """
    if name.endswith((".pt2", ".onnx")):
        return files.read(name)
    if ":" in name:
        make = imported(name, "network")
    elif name in NETWORKS:
        make = NETWORKS[name]
    else:
        allowed = ", ".join(names()) + ", package.module:callable, a .pt2 file, a .onnx file"
        raise InputError("network", "name", name, "one of " + allowed)
    (channels, *_), classes = MLPERF_TINY.get(name, ((3,), 10))
    arguments = dict(num_classes=num_classes or classes, in_channels=in_channels or channels, **options)
    if name in NETWORKS:
        bounded(name, lambda: make(**arguments))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            made = make(**arguments)
        except TypeError as error:
            raise InputError("network", f"{name} options", options, str(error)) from None
        except Exception as error:  # of code of anybody's
            reason = f"{type(error).__name__}: {error}"
            raise InputError("network", name, reason, "a callable that makes a network of these options") from error
    if not isinstance(made, nn.Module):
        raise InputError("network", name, type(made).__name__, "a callable that returns a torch.nn.Module")
    return made
