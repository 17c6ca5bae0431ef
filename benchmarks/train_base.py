"""Train a network that the CIFAR-10 studies start from, and write it as 8-bit words.

    python benchmarks/train_base.py --root FOLDER --out benchmarks/checkpoints/cifar10-resnet14.safetensors

FOLDER holds cifar-10-batches-bin or cifar-10-batches-py. One thread needs about 2.5 minutes an epoch; a run that is
killed goes on where it was. A large network may see small images first (--size 16, then --start from that run).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F

from neuralfuse import checkpoint, data, networks, training
from neuralfuse.allocator import keep_freed_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--network", default="resnet14")
    parser.add_argument("--options", default="width=32,first_stride=2", help="of the network's builder")
    parser.add_argument("--size", type=int, help="train and test on images made as small as this, by area")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2, help="the peak of the cycle")
    parser.add_argument("--start", help="begin with the weights of another run's .run.safetensors, stopped anywhere")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    keep_freed_memory()

    dataset = data.load(given.dataset, given.root)
    if given.size:
        small = (given.size, given.size)
        images = {"train_x": dataset.train_x, "test_x": dataset.test_x}
        dataset = replace(dataset, **{name: F.interpolate(x, small, mode="area") for name, x in images.items()})
    pairs = dict(pair.split("=") for pair in given.options.split(",") if pair)
    options = {name: int(value) for name, value in pairs.items()}
    network = networks.build(given.network, dataset.num_classes, dataset.in_channels, given.seed, **options)
    before = None
    if given.start:
        tensors, before = checkpoint.load(given.start)
        network.load_state_dict(training.part(tensors, "module."))
    start, shown = time.monotonic(), time.monotonic()

    def progress(step: int, steps: int, figures: dict[str, float]) -> None:
        nonlocal shown
        if time.monotonic() - shown > 60 or step == steps:
            shown = time.monotonic()
            print(f"step {step}/{steps}  loss {figures['loss']:.3f}  {shown - start:.0f} s", flush=True)

    accuracy = training.train_network(
        network, dataset, given.epochs, given.batch, given.learning_rate, shift=dataset.input_shape[-1] // 8,
        seed=given.seed, progress=progress, checkpoint_path=Path(given.out).with_suffix(".run.safetensors"),
    )  # fmt: skip
    record = {"network": given.network, "options": options, "dataset": given.dataset, "accuracy": accuracy,
              "epochs": given.epochs, "batch": given.batch, "seed": given.seed,
              "learning_rate": given.learning_rate, "size": given.size, "before": before}  # fmt: skip
    checkpoint.save_network(given.out, network, record)
    print(f"accuracy {accuracy:.4f}  {given.out}")


if __name__ == "__main__":
    main()
