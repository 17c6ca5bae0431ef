"""The same network, retrained once for the whole lot against random bit errors (RandBET): what a transform gives up by
leaving the network as it is."""

from collections.abc import Callable
from pathlib import Path

from neuralfuse.quantized.checkpoint import load_network, save_network
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.sweep.bench import Bench
from neuralfuse.training.baselines import RandomBitErrors
from neuralfuse.training.loop import Progress
from neuralfuse.training.network import train_network

CLIP = 0.1  # largest weight: Stutz et al., MLSys 2021
BATCH, LEARNING_RATE = 128, 0.01  # with 0.05 a fine-tuning leaves the clean loss behind


def retrained(
    bench: Bench,
    name: str,
    path: Path,
    rate: float,
    epochs: int,
    say: Callable[[str], Progress],
    seed: int = 0,
    precision: str = "float32",
) -> FaultyNetwork:
    """Network `name` of the prepared study, fine-tuned from its words for cell fault rate `rate`; kept in `path`.

    A stuck cell reads wrong half of the time, so bits flip with half the rate. A training that is killed goes on.
    """
    config, network = bench.study.network(name), bench.folder.network(name)
    if not path.is_file():
        digits = bench.study.dataset.name == "digits"
        settings = dict(flip=False, shift=2) if digits else {}
        accuracy = train_network(
            network, bench.data, epochs, BATCH, LEARNING_RATE, bits=config.bits, clip=CLIP,
            objective=RandomBitErrors(rate / 2, config.bits, seed=seed, per_channel=config.per_channel),
            per_channel=config.per_channel, seed=seed, precision=precision,
            checkpoint_path=path.with_suffix(".partial"), progress=say(f"retrain {name} with random bit errors"),
            **settings,
        )  # fmt: skip
        record = {"cell_fault_rate": rate, "epochs": epochs, "seed": seed, "precision": precision, "accuracy": accuracy}
        save_network(path, network, record, config.bits, config.per_channel)
        path.with_suffix(".partial").unlink(missing_ok=True)
    load_network(network, path)
    return FaultyNetwork(network, config.bits, config.per_channel, bench.study.device, fold=True)
