"""Chips per second of a sweep against the loop that one would write first: deep copy, new map over every stored bit,
quantise, evaluate.

    python -m benchmarks.speed.sweep_speed [--network resnet18] [--generators ConvL]

The paper's study on digits, at 11 supplies of the weights: no protection, and each of the paper's six
generators at its width; weights as drawn, for they do not change the time. Ours is what a sweep's workers run
(`run_chunk`), rows, rates and energies included, first with one worker and then with one on each core; the naive loop
has one thread, and then one for each core. Start-up is in neither; what ours computes once for all chips (images behind
a generator, costs) is in its first chip only, which is printed beside the others. One worker against one thread is
measured in turns and in processor time, so that other work on the machine hardly counts; all cores by the clock, on a
machine that does nothing else (`--one-worker` leaves them out).
"""

import argparse
import copy
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path
from statistics import median

import numpy as np
import torch

from neuralfuse.quantized import checkpoint, evaluate
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import dequantize, quantize, weight_parameters
from neuralfuse.results.rows import Result
from neuralfuse.study.config import NetworkConfig, NeuralFuseConfig, ProtectionConfig, StudyConfig
from neuralfuse.study.data import build_network
from neuralfuse.study.files import Study
from neuralfuse.study.folder import StudyFolder
from neuralfuse.study.grid import Point
from neuralfuse.study.prepare import prepare
from neuralfuse.study.supplies import operating_points
from neuralfuse.sweep.bench import Bench, Die, run_chunk
from neuralfuse.sweep.executors import choose
from neuralfuse.sweep.task import Task
from neuralfuse.transforms import generators
from sram import failure
from sram.progress import silent

VOLTAGES = [1.0, 0.9, 0.875, 0.85, 0.8375, 0.825, 0.8125, 0.8, 0.7875, 0.775, 0.75]


def study_of(network: str, names: list[str], weights: Path) -> StudyConfig:
    """A study of digits with this network and these generators, all untrained."""
    voltages = VOLTAGES if network == "resnet8" else VOLTAGES[:9:2]
    plain = Study("speed", networks=[network], voltages=voltages, sram={"structures": ["column"]})
    config = NetworkConfig(name=network, checkpoint=str(weights / "network.safetensors"))
    checkpoint.save(weights / "network.safetensors", build_network(config, plain).state_dict(), {})
    protections = [ProtectionConfig(name="none")]
    for name in names:
        fuse = NeuralFuseConfig(generator=name, checkpoint=str(weights / f"{name}.safetensors"))
        checkpoint.save(weights / f"{name}.safetensors", generators.build(name, 1).state_dict(), {})
        protections.append(ProtectionConfig(name=name, neuralfuse=fuse))
    return plain.model_copy(update={"networks": (config,), "protections": tuple(protections)})


def naive(bench: Bench, network: torch.nn.Module, fuse: torch.nn.Module | None, chip: int) -> list[int]:
    """Right answers of one chip at each voltage. Every number is made anew from the float network."""
    study, counts = bench.study, []
    curve = failure.curve(study.sram.curve)
    for i, voltage in enumerate(study.voltages):
        random = np.random.default_rng([chip, i])
        broken = copy.deepcopy(network)
        for weight in weight_parameters(broken).values():
            words, scale = quantize(weight.data)
            bits = np.unpackbits(words.numpy().view(np.uint8)[..., None], axis=-1)
            faulty = random.random(bits.shape) < float(curve.probability(voltage))
            stuck = random.random(bits.shape) < 0.5
            read = np.packbits(np.where(faulty, stuck, bits), axis=-1)[..., 0].view(np.int8)
            weight.data = dequantize(torch.from_numpy(read), scale)
        model = broken if fuse is None else torch.nn.Sequential(fuse, broken)
        counts.append(evaluate.correct(model, bench.images, bench.labels, study.batch_size))
    return counts


def tasks_of(point: Point, study: StudyConfig, chip: int) -> list[Task]:
    """One chip behind one protection, as a sweep hands it out."""
    return [Task(point, chip, at) for at in operating_points(study, point.accelerator)]


def check(bench: Bench, counts: list[int], rows: list[Result]) -> None:
    """Where both can be compared they agree: at nominal supply, and on the words that ours has read from a chip."""
    assert counts[0] == rows[0].correct, "nominal supply"
    last = rows[-1]
    assert last.flip_rate > 0
    plain = build_network(bench.study.networks[0], bench.study)
    checkpoint.load_network(plain, bench.study.networks[0].checkpoint)
    read = FaultyNetwork(plain.eval())
    chip = bench.chip(last.network, Die(last.accelerator, last.structure, last.chip), ())
    weight, bit, kind = chip.faults(last.voltage)
    words = read.clean_words.astype(np.int64) & 255
    for w, b, k in zip(weight.tolist(), bit.tolist(), kind.tolist(), strict=True):
        words[w] = words[w] | 1 << b if k else words[w] & ~(1 << b)
    for layer, parameter in zip(read.layer_table, weight_parameters(plain).values(), strict=True):
        _, scale = quantize(parameter)
        part = words[layer.offset : layer.offset + layer.size].astype(np.uint8).view(np.int8).reshape(layer.shape)
        parameter.data = dequantize(torch.from_numpy(part), scale)
    images = bench.inputs(last.network, last.protection)
    assert evaluate.correct(plain, images, bench.labels, bench.study.batch_size) == last.correct, "lowest supply"


def by_pool(pool: Executor, folder: Path, points: list[Point], study: StudyConfig, chips: range) -> float:
    """Seconds by the clock for these chips."""
    start = time.perf_counter()
    parts = [tasks_of(point, study, chip) for chip in chips for point in points]
    waiting = [pool.submit(run_chunk, str(folder), part) for part in parts]
    for future in waiting:
        future.result()
    return time.perf_counter() - start


class Forward:
    """Processor time spent in the network's own forward pass, while it is installed."""

    def __init__(self):
        self.seconds, self.plain = 0.0, FaultyNetwork.__call__

    def __enter__(self):
        def timed(model: FaultyNetwork, x: torch.Tensor) -> torch.Tensor:
            start = time.process_time()
            result = self.plain(model, x)
            self.seconds += time.process_time() - start
            return result

        FaultyNetwork.__call__ = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *error) -> None:
        FaultyNetwork.__call__ = self.plain  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "a built-in network; others than resnet8: every second voltage, down to 7% faults"
    parser.add_argument("--network", default="resnet8", help=text)
    parser.add_argument("--generators", default=",".join(generators.names()), help="of the paper; empty for none")
    parser.add_argument("--chips", type=int, default=3)
    parser.add_argument("--one-worker", action="store_true", help="leave out the runs on all cores")
    given = parser.parse_args()
    workers = choose()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        weights, folder = Path(name), Path(name) / "study"
        study = study_of(given.network, [part for part in given.generators.split(",") if part], weights)
        opened = StudyFolder(folder, study)
        points = prepare(opened, silent)
        bench = Bench(opened)
        network = build_network(study.networks[0], study).eval()
        checkpoint.load_network(network, study.networks[0].checkpoint)
        fuses = [bench.transform(point.network, point.protection) for point in points]
        title = f"{given.network} on {len(bench.labels)} digits, {len(study.voltages)} voltages"
        print(f"{title}; one thread, seconds of processor time a chip, median of {given.chips} chips")
        print(f"{'protection':12}{'naive':>9}{'ours':>9}{'ratio':>8}{'first chip':>12}{'not forward':>13}")
        sums = []
        for point, fuse in zip(points, fuses, strict=True):
            slow, fast, shares = [], [], []
            counts = naive(bench, network, fuse, 0)  # warms up, and so does the first chip of ours
            start = time.process_time()
            rows = run_chunk(str(folder), tasks_of(point, study, 0))
            first = time.process_time() - start
            check(bench, counts, rows)
            for chip in range(1, given.chips + 1):
                start = time.process_time()
                naive(bench, network, fuse, chip)
                middle = time.process_time()
                with Forward() as forward:
                    run_chunk(str(folder), tasks_of(point, study, chip))
                slow.append(middle - start)
                fast.append(time.process_time() - middle)
                shares.append(1 - forward.seconds / fast[-1])
            sums.append((median(slow), median(fast), first))
            line(point.protection, *sums[-1], f"{100 * median(shares):.1f}%")
        line("all", *(sum(column) for column in zip(*sums, strict=True)))
        if given.one_worker:
            return
        one = sum(slow for slow, _, _ in sums)
        torch.set_num_threads(workers.count)
        wall = time.perf_counter()
        for fuse in fuses:
            naive(bench, network, fuse, 0)
        threaded = time.perf_counter() - wall
        torch.set_num_threads(1)
        with workers.make() as pool:
            by_pool(pool, folder, points, study, range(2 * workers.count))  # every worker starts and loads
            many = max(given.chips, 2 * workers.count)
            pooled = by_pool(pool, folder, points, study, range(100, 100 + many)) / many
        print("all protections, chips/s by the clock:")
        print(f"{'naive loop, one thread':26}{1 / one:9.3f}{1:8.2f}")
        print(f"{f'naive loop, {workers.count} threads':26}{1 / threaded:9.3f}{one / threaded:8.2f}")
        print(f"{f'ours, {workers.label}':26}{1 / pooled:9.3f}{one / pooled:8.2f}")


def line(name: str, slow: float, fast: float, first: float, share: str = "") -> None:
    print(f"{name:12}{slow:9.2f}{fast:9.2f}{slow / fast:8.2f}{first:12.2f}{share:>13}", flush=True)


if __name__ == "__main__":
    main()
