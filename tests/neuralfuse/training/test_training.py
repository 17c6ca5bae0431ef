"""Is EOPM's gradient the paper's equation, and does a training that is killed end with the same numbers?"""

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_info
from torch import nn

from neuralfuse import data, networks
from neuralfuse.chips.sources import IndependentCells, Pool, bernoulli
from neuralfuse.quantized import checkpoint
from neuralfuse.quantized.evaluate import correct
from neuralfuse.quantized.faulty import FaultyNetwork
from neuralfuse.quantized.quantize import fake_quantize, fake_quantized, quantize, weight_parameters
from neuralfuse.training.checkpoints import Checkpoints, Run, described
from neuralfuse.training.eopm import eopm_backward
from neuralfuse.training.generator import HeldOut, held_out_accuracy, train_generator
from neuralfuse.training.loop import batch_indices, deterministic, seeded, threads
from neuralfuse.training.network import one_cycle, train_network
from neuralfuse.training.objectives import CrossEntropy, RandomBitErrors, objective
from neuralfuse.training.settings import PRECISIONS, GeneratorSettings, NetworkSettings
from neuralfuse.transforms import generators
from sram.errors import InputError
from tests.conftest import ROOT


def tiny_data(n=96):
    random = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    x = (torch.randn(n, 1, 8, 8, generator=random) * 0.3 + y[:, None, None, None] / 3 - 0.5).clamp(-1, 1)
    return data.Dataset("tiny", x[:64], y[:64], x[64:], y[64:], 4)


def tiny_network():
    return networks.build("resnet8", 4, 1, width=4)


def double(faulty: FaultyNetwork) -> FaultyNetwork:
    """The same network in float64: weights become views of a float64 vector, so that rounding does not hide an
    error."""
    faulty.network.double()
    faulty._values = faulty._values.double()
    faulty._stored.values = faulty._values.numpy()
    for layer in faulty.layer_table:
        faulty.network.get_parameter(layer.name).data = faulty._values[layer.offset : layer.offset + layer.size].view(
            layer.shape
        )
    return faulty


def test_a_network_trained_in_bfloat16_is_another_one_and_as_good():
    """Both learn the four classes."""
    tiny, made = tiny_data(), []
    for precision in PRECISIONS:
        network = tiny_network()
        settings = NetworkSettings(12, 16, learning_rate=0.05, shift=0, flip=False, precision=precision)
        accuracy = train_network(network, tiny, settings)
        assert accuracy > 0.9
        made.append(torch.cat([weight.flatten() for weight in weight_parameters(network).values()]))
    assert made[0].dtype == made[1].dtype == torch.float32
    assert not torch.equal(*made)
    with pytest.raises(InputError, match="'float32' or 'bfloat16'"):
        NetworkSettings(precision="float16")


@pytest.mark.parametrize("weight", [0.0, 0.1, 5.0])
def test_eopm_gradient_equals_the_papers_sum(weight):
    """One pass with gradients summed at F(x), against the loss written out: N + 1 networks, N + 1 generator passes."""
    tiny, maps = tiny_data(), 4
    x, y = tiny.train_x[:16].double(), tiny.train_y[:16]
    source = IndependentCells(double(FaultyNetwork(tiny_network())).words.size, (0.002, 0.02), seed=1)

    def fuse():
        return generators.NeuralFuse(generators.build("ConvS", 1, width=4)).double()

    ours = fuse()
    losses = eopm_backward(
        double(FaultyNetwork(tiny_network())), ours, x, y, (source(i) for i in range(maps)), maps, weight
    )

    naive = fuse()
    # every map its own network, so nothing is shared with the fast path but the words
    clean = double(FaultyNetwork(tiny_network()))
    faulty = [double(FaultyNetwork(tiny_network())) for _ in range(maps)]
    for i, network in enumerate(faulty):
        network.set_faults(*source(i))
        for parameter, layer in zip(weight_parameters(network.network).values(), network.layer_table, strict=True):
            words = network.words[layer.offset : layer.offset + layer.size].reshape(layer.shape)
            scale = network._stored.scale[network.layer_table.index(layer)]
            parameter.data = torch.from_numpy(words.astype(np.float32) * scale).double()
    terms = [F.cross_entropy(network(naive(x)), y) for network in faulty]
    (F.cross_entropy(clean(naive(x)), y) + weight / maps * sum(terms)).backward()

    assert losses[1] == pytest.approx(sum(terms).item() / maps, rel=1e-6)
    for a, b in zip(ours.parameters(), naive.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 1e-10 * max(b.grad.norm(), 1e-3)


def test_eopm_leaves_the_network_clean_and_without_weight_gradients():
    tiny, faulty = tiny_data(), FaultyNetwork(tiny_network())
    fuse = generators.NeuralFuse(generators.build("UNetS", 1, width=2))
    source = IndependentCells(faulty.words.size, (0.05,))
    eopm_backward(faulty, fuse, tiny.train_x[:8], tiny.train_y[:8], (source(i) for i in range(2)), 2)
    assert np.array_equal(faulty.words, faulty.clean_words)
    assert all(p.grad is None for p in faulty.network.parameters())
    assert all(p.grad is not None for p in fuse.parameters())


def train_tiny(path=None, stop_after=None, steps=8, held_out=None, width=2, seed=0, settings=None, **more):
    tiny, faulty = tiny_data(), FaultyNetwork(tiny_network())
    fuse = generators.NeuralFuse(generators.build("UNetS", 1, width=width))
    source = IndependentCells(faulty.words.size, (0.01, 0.02), seed=3)

    class Killed(BaseException):
        pass

    def progress(step, total, figures):
        if step == stop_after:
            raise Killed

    how = GeneratorSettings(**{"steps": steps, "batch": 16, "maps": 2, "learning_rate": 0.01, "shift": 1, "flip": False}
                            | more)  # fmt: skip
    try:
        run = Run(path, settings, progress)
        result = train_generator([(faulty, source)], fuse, tiny, how, seed=seed, held_out=held_out, run=run)
    except Killed:
        return None, fuse
    return result, fuse


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop_after", [1, 5])
def test_generator_training_goes_on_where_it_was_stopped(tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(Checkpoints, "seconds", -1.0, raising=False)
    original = Checkpoints.__init__
    monkeypatch.setattr(Checkpoints, "__init__", lambda self, *a, **k: original(self, *a, seconds=-1.0))
    held_out = HeldOut(
        tiny_data().test_x, tiny_data().test_y, [IndependentCells(4000, (0.02,), seed=9)(i) for i in range(2)], every=3
    )
    whole, expected = train_tiny(held_out=held_out)
    train_tiny(tmp_path / "g.safetensors", stop_after, held_out=held_out)
    resumed, found = train_tiny(tmp_path / "g.safetensors", held_out=held_out)
    assert resumed == whole
    assert same(found, expected)
    finished, again = train_tiny(tmp_path / "g.safetensors", held_out=held_out)  # nothing is left to do
    assert finished == whole
    assert same(again, expected)


def write_always(monkeypatch):
    original = Checkpoints.__init__
    monkeypatch.setattr(Checkpoints, "__init__", lambda self, *a, **k: original(self, *a, seconds=-1.0))


@pytest.mark.parametrize("other", [{"seed": 1}, {"settings": "what else was edited"}, {"width": 4}])
def test_a_training_that_is_not_the_stopped_one_starts_afresh(tmp_path, monkeypatch, other):
    """Arguments, settings that they do not tell, or the generator itself differ: nothing of the other run is left."""
    write_always(monkeypatch)
    other = {"settings": "as they were"} | other
    train_tiny(tmp_path / "g.safetensors", stop_after=5, settings="as they were")
    whole, expected = train_tiny(**other)
    found, fuse = train_tiny(tmp_path / "g.safetensors", **other)
    assert found == whole
    assert same(fuse, expected)


@pytest.mark.parametrize("other", [{"seed": 1}, {"width": 4}])
def test_a_file_that_the_user_named_is_not_written_over_by_another_training(tmp_path, monkeypatch, other):
    write_always(monkeypatch)
    train_tiny(tmp_path / "g.safetensors", stop_after=5)
    before = (tmp_path / "g.safetensors").read_bytes()
    with pytest.raises(InputError, match="a run of this module with"):
        train_tiny(tmp_path / "g.safetensors", **other)
    assert (tmp_path / "g.safetensors").read_bytes() == before


def test_a_file_that_is_not_of_a_training_is_not_written_over(tmp_path):
    path = checkpoint.save_network(tmp_path / "mine.safetensors", tiny_network(), {})
    before = path.read_bytes()
    with pytest.raises(InputError, match="of a training that was stopped"):
        train_network(tiny_network(), tiny_data(), NetworkSettings(1, 16), run=Run(path))
    assert path.read_bytes() == before


def plain(network, x, y, step):
    return CrossEntropy()(network, x, y, step)


def test_an_objective_is_told_alike_by_every_process():
    assert described(objective()) == "CrossEntropy(smoothing=0.0)"
    assert described(RandomBitErrors(0.01)) == repr(RandomBitErrors(0.01))
    assert described(plain) == f"{__name__}.plain"
    for one in (plain, lambda network, x, y, step: 0.0, type("Own", (), {"__call__": plain})()):
        assert "0x" not in described(one)


def with_dropout():
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4))


def train_with_dropout(path=None, stop_after=None, stream=0):
    """A training of 8 steps, begun wherever torch's own stream of random numbers happens to be."""
    network = with_dropout()

    def progress(step, steps, figures):
        if step == stop_after:
            raise KeyboardInterrupt

    torch.manual_seed(stream)
    before = torch.random.get_rng_state()
    try:
        train_network(network, tiny_data(), NetworkSettings(2, 16), run=Run(path, progress=progress))
    except KeyboardInterrupt:
        pass
    assert torch.random.get_rng_state().equal(before)
    return network


def test_a_training_with_dropout_is_a_function_of_its_arguments_and_goes_on(tmp_path, monkeypatch):
    write_always(monkeypatch)
    expected = train_with_dropout()
    assert same(train_with_dropout(stream=1), expected)
    train_with_dropout(tmp_path / "n.safetensors", stop_after=5, stream=2)
    assert same(train_with_dropout(tmp_path / "n.safetensors", stream=3), expected)


def test_dropout_differs_from_step_to_step_and_from_seed_to_seed():
    def mask(seed, step):
        with seeded(seed, step, torch.device("cpu")):
            return tuple(F.dropout(torch.ones(64)).tolist())

    assert len({mask(0, 0), mask(0, 1), mask(1, 0)}) == 3
    assert mask(0, 1) == mask(0, 1)


def test_a_network_per_channel_is_trained_and_kept_as_the_words_that_it_is_stored_in(tmp_path):
    """Rounded per tensor first, a channel of small weights would have kept a few levels of its 255."""
    network = with_dropout()
    with torch.no_grad():
        network[1].weight[::2] /= 50
    train_network(network, tiny_data(), NetworkSettings(1, 16, 1e-5, 0.0), per_channel=True)
    for weight in weight_parameters(network).values():
        words, scale = quantize(weight, per_channel=True)
        assert torch.allclose(words * scale, weight.detach(), rtol=1e-6)
        assert (words.abs().amax(1) == 127).all()
        assert words[0].unique().numel() > 8
    path = checkpoint.save_network(tmp_path / "n.safetensors", network, {}, per_channel=True)
    read = with_dropout()
    checkpoint.load_network(read, path)
    for name, weight in weight_parameters(read).items():
        assert torch.allclose(weight, weight_parameters(network)[name], rtol=1e-6)
    assert np.array_equal(FaultyNetwork(read, per_channel=True).words, FaultyNetwork(network, per_channel=True).words)


class Broken(BaseException):
    """As Ctrl-C: no Exception."""


def broken_source(faulty, at=1):
    source = IndependentCells(faulty.words.size, (0.05,))

    def draws(n):
        for i in range(n):
            if i == at:
                raise Broken
            yield source(i)

    return draws


def test_deterministic_kernels_are_asked_for_inside_the_block_alone():
    def mode():
        return torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory

    before = mode()
    with suppress(ZeroDivisionError), deterministic():
        inside = mode()
        1 / 0  # noqa: B018
    assert inside == (True, False)
    assert mode() == before == (False, True)


def test_what_breaks_off_leaves_no_faults_behind():
    tiny, faulty = tiny_data(), FaultyNetwork(tiny_network())
    fuse = generators.NeuralFuse(generators.build("UNetS", 1, width=2))
    with pytest.raises(Broken):
        eopm_backward(faulty, fuse, tiny.train_x[:8], tiny.train_y[:8], broken_source(faulty)(2), 2)
    assert np.array_equal(faulty.words, faulty.clean_words)
    with pytest.raises(Broken):
        held_out_accuracy(faulty, tiny.test_x, tiny.test_y, broken_source(faulty)(2))
    assert np.array_equal(faulty.words, faulty.clean_words)


def test_base_training_survives_kill_9(tmp_path):
    script = textwrap.dedent(f"""
        import sys; sys.path[:0] = {[str(ROOT)]!r}
        import os, signal, torch
        from neuralfuse.training.checkpoints import Checkpoints, Run
        from neuralfuse.training.network import one_cycle, train_network
        from neuralfuse.training.settings import NetworkSettings
        from tests.neuralfuse.training.test_training import tiny_data, tiny_network
        torch.set_num_threads({torch.get_num_threads()})
        original = Checkpoints.__init__
        Checkpoints.__init__ = lambda self, *a, **k: original(self, *a, seconds=-1.0)
        def progress(step, steps, figures):
            if step == 7: os.kill(os.getpid(), signal.SIGKILL)
        train_network(tiny_network(), tiny_data(), NetworkSettings(3, 16), run=Run(sys.argv[1], progress=progress))
    """)

    path = tmp_path / "run.safetensors"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.load(path)[1]["step"] == 7

    def finish(checkpoint_path):
        network = tiny_network()
        train_network(network, tiny_data(), NetworkSettings(3, 16), run=Run(checkpoint_path))
        return network

    assert same(finish(path), finish(None))


def test_training_reduces_faulty_loss_and_early_stop_keeps_the_best():
    tiny = tiny_data()
    network = tiny_network()
    accuracy = train_network(network, tiny, NetworkSettings(12, 16, shift=0, flip=False))
    assert accuracy > 0.8
    for weight in weight_parameters(network).values():
        assert torch.equal(weight, fake_quantize(weight))
    faulty = FaultyNetwork(network)
    source = IndependentCells(faulty.words.size, (0.02,), seed=3)
    fuse = generators.NeuralFuse(generators.build("UNetS", 1, width=4))
    losses = []
    held = HeldOut(tiny.test_x, tiny.test_y, [source(1000 + i) for i in range(8)], every=10, patience=2)
    settings = GeneratorSettings(60, 32, 4, learning_rate=5e-3, shift=0, flip=False)
    run = Run(progress=lambda step, steps, figures: losses.append(figures["faulty_loss"]))
    result = train_generator([(faulty, source)], fuse, tiny, settings, held_out=held, run=run)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert result.best_step % 10 == 0
    assert result.steps == len(losses) <= result.best_step + 20
    protected = fuse(tiny.test_x).detach()
    assert held_out_accuracy(faulty, protected, tiny.test_y, held.faults) == pytest.approx(
        result.held_out_accuracy, abs=0.02
    )
    with fake_quantized(fuse):
        assert torch.equal(fuse(tiny.test_x), protected)  # the generator was left as its words


def test_wrong_settings_are_refused():
    for wrong in ({"decay": "linear"}, {"maps": 0}, {"steps": 0}, {"weight": -1.0}):
        with pytest.raises(InputError, match="training"):
            train_tiny(**wrong)


def test_settings_are_read_from_a_mapping_or_are_settings_already():
    given = NetworkSettings(epochs=5)
    assert NetworkSettings.read(given) is given
    assert NetworkSettings.read({"epochs": 5}) == given
    with pytest.raises(ValueError, match="a mapping"):
        NetworkSettings.read(5)
    with pytest.raises(InputError, match="only the keys"):
        NetworkSettings.read({"epoch": 5})


def test_every_epoch_sees_every_image_once():
    seen = torch.cat([batch_indices(60, 20, seed=1, step=step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(60))
    assert not torch.equal(seen[:20], batch_indices(60, 20, seed=1, step=3))


def test_independent_cells_have_their_rate():
    """400 maps of 8,000 bits at 1%: the mean count lies within 4.5 standard errors (false alarm 7e-6)."""
    source = IndependentCells(1000, (0.01,), seed=4)
    counts, ones = zip(*((len(weight), kind.sum()) for weight, _, kind in (source(i) for i in range(400))), strict=True)
    assert abs(np.mean(counts) - 80) < 4.5 * (8000 * 0.01 * 0.99 / 400) ** 0.5
    assert np.var(counts) == pytest.approx(79.2, rel=0.32)  # 4.5 standard errors of a variance over 400 draws
    assert abs(sum(ones) - sum(counts) / 2) < 4.5 * (sum(counts) / 4) ** 0.5
    weight, bit, _ = source(5)
    assert len(set(zip(weight.tolist(), bit.tolist(), strict=True))) == len(weight)
    for part, again in zip(source(5), source(5), strict=True):
        assert np.array_equal(part, again)


def test_bernoulli_at_its_ends():
    random = np.random.default_rng(0)
    assert bernoulli(random, 1000, 0.0).size == 0
    assert bernoulli(random, 1000, 1.0).tolist() == list(range(1000))


def test_pool_repeats_its_maps():
    calls = []

    def source(draw):
        calls.append(draw)
        return np.array([draw]), np.array([0], np.uint8), np.array([0], np.uint8)

    pool = Pool(source, 3)
    assert [int(pool(draw)[0][0]) for draw in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert calls == [0, 1, 2]


def test_network_checkpoints_hold_the_words(tmp_path):
    network = networks.build("resnet8", 4, 1, width=4, seed=5)
    path = checkpoint.save_network(tmp_path / "n.safetensors", network, {"note": "x"})
    read = networks.build("resnet8", 4, 1, width=4, seed=6)
    assert checkpoint.load_network(read, path) == {"note": "x", "bits": 8}
    assert np.array_equal(FaultyNetwork(read).words, FaultyNetwork(network).words)
    stored = sum(p.numel() for p in weight_parameters(network).values())
    assert path.stat().st_size < stored + 20_000
    with pytest.raises(InputError, match="fit the network"):
        checkpoint.load_network(networks.build("resnet8", 4, 1, width=8), path)
    for content in (b"", b"\x80\x04K\x01.", b"\x10\x00\x00\x00\x00\x00\x00\x00notjson"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InputError, match="safetensors"):
            checkpoint.load(tmp_path / "bad")
    with pytest.raises(InputError, match="missing"):
        checkpoint.load(tmp_path / "absent")


def test_digits_network_reaches_the_demos_accuracy():
    digits = data.load("digits")
    network = networks.build("resnet8", digits.num_classes, digits.in_channels, width=8)
    accuracy = train_network(network, digits, NetworkSettings(5, shift=1, flip=False))
    assert accuracy == correct(network, digits.test_x, digits.test_y) / 450
    assert accuracy >= 0.95  # a quarter of the demo's channels and a quarter of its epochs


def test_one_cycle_by_hand():
    """Of 100 steps the first 20 rise in equal parts to the peak, then half a cosine falls to nothing."""
    rate = [one_cycle(step, 100) for step in range(101)]
    assert rate[0] == pytest.approx(1 / 21)
    assert rate[19] == pytest.approx(20 / 21)
    assert rate[20] == max(rate) == 1
    assert rate[40] == pytest.approx(0.5 + 0.5 * 2**-0.5)
    assert rate[60] == pytest.approx(0.5)
    assert rate[100] == pytest.approx(0, abs=1e-12)


def test_threads_hold_for_torch_and_for_numpys_products():
    def counts():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = torch.get_num_threads(), counts()
    assert before[1]
    for count in (1, 2):
        with threads(count):
            assert torch.get_num_threads() == count
            assert set(counts()) == {count}
    assert (torch.get_num_threads(), counts()) == before
