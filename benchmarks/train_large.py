"""Train a large network for the CIFAR-10 studies in under two hours of two cores, and write it as 8-bit words.

    python benchmarks/train_large.py --root FOLDER --network resnet18 --out out/resnet18/base.safetensors

Three things save time. Images grow while it trains (--phases SIZE:EPOCHS,...): small ones cost a quarter, and most is
learnt on them. Filters follow Muon, whose step is the nearest orthogonal matrix to the gradient, so all directions of
a layer learn at one pace (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024), and each
layer keeps its norm, as batch normalisation after it makes that free. The rate falls linearly with the work that is
left, not with the steps. Labels are smoothed. `--precision bfloat16` saves more on a CPU with instructions for it.
Every step computes with rounded weights, as `train_network` does; a run that is killed goes on
where it was.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse import data, networks
from neuralfuse.data import augment
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.quantize import fake_quantized, quantize_in_place
from neuralfuse.sweep.allocator import keep_freed_memory
from neuralfuse.training.loop import Checkpoints, batch_indices, computing_in, deterministic, layout, part, random
from neuralfuse.training.settings import PRECISIONS

BITS = 8
RISE = 0.03  # share of the work over which the rate goes up


def orthogonal(matrix: Tensor, iterations: int) -> Tensor:
    """About the orthogonal factor of the polar decomposition, by a quintic iteration whose singular values end in
    0.7 to 1.2 (coefficients of Jordan et al.), which is near enough for a step."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum steps: orthogonal ones for groups with `iterations`, of layers that keep their norm; else Nesterov's."""

    def __init__(self, groups: list[dict]):
        super().__init__(groups, {"iterations": 0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                gradient = weight.grad + group["weight_decay"] * weight
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(group["momentum"]).add_(gradient)
                direction = gradient.add_(momentum, alpha=group["momentum"])
                if group["iterations"]:
                    weight.mul_(len(weight) ** 0.5 / weight.norm())  # filters of norm 1 on average
                    direction = orthogonal(direction.flatten(1), group["iterations"]).view_as(weight)
                weight.add_(direction, alpha=-group["lr"])


def optimizer_for(network: nn.Module, rate: float, other_rate: float) -> Muon:
    filters = [weight for weight in network.parameters() if weight.ndim == 4]
    others = [weight for weight in network.parameters() if weight.ndim != 4]
    return Muon([
        {"params": filters, "peak": rate, "lr": rate, "momentum": 0.85, "iterations": 3},
        {"params": others, "peak": other_rate, "lr": other_rate, "momentum": 0.9, "weight_decay": 1e-4},
    ])  # fmt: skip


class Convolution(nn.Conv2d):
    """As its base class; of a map up to 2 x 2, whose every pixel a 3 x 3 filter sees, as one matrix product
    without the padding, on which a filter spends 5 of 9 multiplications there, and 8 of 9 on a single pixel."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if max(height, width) > 2:
            return super().forward(x)
        rows = [self.weight[:, :, 1 - i : 1 - i + height, 1 - j : 1 - j + width]  # what output pixel (i, j) sees
                for i in range(height) for j in range(width)]  # fmt: skip
        y = F.linear(x.flatten(1), torch.cat(rows).flatten(1)).view(len(x), height, width, -1).permute(0, 3, 1, 2)
        return y if self.bias is None else y + self.bias[:, None, None]


def for_small_images(network: nn.Module) -> None:
    """A map of one pixel stays one at a pooling, as VGG's do in images under 32; larger ones of 2^n do not change.
    Convolutions of maps this small skip their padding."""
    for layer in network.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
        if isinstance(layer, nn.Conv2d):
            shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
            if shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1):
                layer.__class__ = Convolution


def phases(text: str) -> list[list[float]]:
    """SIZE:EPOCHS,... as pairs."""
    try:
        pairs = [[int(size), float(epochs)] for size, _, epochs in (one.partition(":") for one in text.split(","))]
    except ValueError:
        pairs = []
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed is SIZE:EPOCHS,..., all above 0, as 16:3,32:1")
    return pairs


def schedule(phases: Iterable[Sequence[float]], images: int, batch: int) -> list[tuple[int, float]]:
    """Of every step its image size and its share of the peak rate, which falls with the work left (pixels)."""
    sizes = [int(size) for size, epochs in phases for _ in range(round(epochs * images / batch))]
    total, done, steps = sum(size * size for size in sizes), 0.0, []
    for size in sizes:
        share = (done + size * size / 2) / total
        steps.append((size, min(share / RISE, (1 - share) / (1 - RISE))))
        done += size * size
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--phases", type=phases, default="16:3,24:2,32:1", help="image size and epochs, in order")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=0.07, help="the peak for filters")
    parser.add_argument("--other-rate", type=float, default=0.05, help="the peak for all else")
    parser.add_argument("--smoothing", type=float, default=0.1, help="of labels")
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS), help="of the products")
    parser.add_argument("--start", help="begin with a network, or another run's .run.safetensors, stopped anywhere")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    keep_freed_memory()

    dataset = data.load("cifar10", given.root)
    network = networks.build(given.network, dataset.num_classes, dataset.in_channels, given.seed)
    before = None
    if given.start:
        tensors, before = checkpoint.load(given.start)
        if stopped := part(tensors, "module."):
            network.load_state_dict(stopped)
        else:
            checkpoint.load_network(network, given.start)
    for_small_images(network)
    memory_format = layout(network, torch.device("cpu"))
    network.train().to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = optimizer_for(network, given.learning_rate, given.other_rate)
    arguments = {"phases": given.phases, "batch": given.batch, "learning_rate": given.learning_rate,
                 "other_rate": given.other_rate, "smoothing": given.smoothing, "seed": given.seed,
                 "precision": given.precision, "before": before}  # fmt: skip
    checkpoints = Checkpoints(Path(given.out).with_suffix(".run.safetensors"), arguments, seconds=120)
    record, _ = checkpoints.read(network, optimizer)
    steps = schedule(given.phases, len(dataset.train_y), given.batch)
    images: dict[int, Tensor] = {}
    start, shown, mean = time.monotonic(), time.monotonic(), None
    with deterministic():
        for step in range(record.get("step", 0), len(steps)):
            size, rate = steps[step]
            if size not in images:
                images = {size: F.interpolate(dataset.train_x, (size, size), mode="area")}
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            index = batch_indices(len(dataset.train_y), given.batch, given.seed, step)
            x = augment(images[size][index], random(given.seed, step), shift=size // 16, flip=True)
            optimizer.zero_grad()
            x, y = x.to(memory_format=memory_format), dataset.train_y[index]
            with fake_quantized(network, BITS):
                with computing_in(given.precision, x.device):
                    output = network(x)
                loss = F.cross_entropy(output.float(), y, label_smoothing=given.smoothing)
                loss.backward()
            optimizer.step()
            share = float((output.argmax(1) == y).float().mean())
            mean = share if mean is None else 0.9 * mean + 0.1 * share
            checkpoints.write(network, optimizer, {"step": step + 1}, {}, last=step + 1 == len(steps))
            if time.monotonic() - shown > 60 or step + 1 == len(steps):
                shown = time.monotonic()
                print(f"step {step + 1}/{len(steps)}  size {size}  loss {loss.item():.3f}  accuracy on batches "
                      f"{mean:.3f}  {shown - start:.0f} s", flush=True)  # fmt: skip
        quantize_in_place(network, BITS)
        network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        accuracy = correct(network, dataset.test_x, dataset.test_y) / len(dataset.test_y)
    checkpoint.save_network(given.out, network, {"network": given.network, "options": {}, "dataset": "cifar10",
                                                 "accuracy": accuracy, **arguments})  # fmt: skip
    print(f"accuracy {accuracy:.4f}  {given.out}")


if __name__ == "__main__":
    main()
