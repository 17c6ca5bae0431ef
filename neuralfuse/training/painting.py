"""Stages before EOPM, in which a generator learns one by one what EOPM has to find at once.

What a network with faults reads best is not the image but a pattern for each class; a generator that paints it can be
right as often as it knows the class. EOPM has to find both at once, through a gradient that is small before anything is
painted, and several networks a step. Here each is learnt where it is cheap: the classes by cross-entropy on clean
images, through a head on the generator's trunk that is thrown away; the patterns by EOPM with the labels told; and to
paint them, by regression, whose best answer is the sum over classes of p(class | image) x its pattern.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralfuse.chips.sources import Source
from neuralfuse.data import Dataset
from neuralfuse.quantized.integer import Frozen
from neuralfuse.quantized.quantize import fake_quantized
from neuralfuse.training.checkpoints import Run
from neuralfuse.training.eopm import eopm_backward
from neuralfuse.training.loop import Figures, batch_of, computing_in, layout, seeded, threads, train
from neuralfuse.training.muon import by_work, muon
from neuralfuse.training.settings import GeneratorSettings, cosine
from neuralfuse.transforms.generators import NeuralFuse
from sram.errors import InputError

# At the start of a stage; the settings' rate is that of EOPM, which spoils what is painted unless it is low.
CLASS_RATE = 0.1  # of Muon's filters
WEIGHT_DECAY = 5e-4  # of what is not a filter
PATTERN_RATE = 0.05  # of Adam
PAINT_RATE = 4e-3


class Trunk(nn.Module):
    """A generator up to its smallest map, with a linear head at each place of that map: what it paints there, it has to
    paint from what it knows there. Of maps of one size the last with most channels counts.

    >>> from neuralfuse.transforms.generators import build
    >>> trunk = Trunk(build("UNetS"), torch.zeros(1, 3, 32, 32), classes=10)
    >>> trunk.head, trunk(torch.zeros(2, 3, 32, 32)).shape  # (n, classes, places)
    (Linear(in_features=64, out_features=10, bias=True), torch.Size([2, 10, 16]))
    """

    def __init__(self, generator: nn.Module, image: Tensor, classes: int):
        """`image`: one or more, to see the maps of. InputError where a generator has no map inside."""
        super().__init__()
        self.generator = generator
        maps: list[tuple[int, int]] = []  # after each layer in the order of running: places, channels

        def seen(module: nn.Module, given: object, map: Tensor) -> None:
            maps.append((map.shape[-2:].numel(), map.shape[1]))

        training = generator.training
        with _after_each_layer(generator, seen), torch.no_grad():
            generator.eval()(image)
        generator.train(training)
        if len(maps) < 2:
            name = type(generator).__name__
            raise InputError("training", "class_steps", name, "a generator of several layers, whose trunk is taught")
        last = min(range(len(maps)), key=lambda at: (maps[at][0], -maps[at][1], -at))
        self.depth = last + 1  # layers that run
        self.head = nn.Linear(maps[last][1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes, places)."""
        run = 0

        def reached(module: nn.Module, given: object, map: Tensor) -> None:
            nonlocal run
            run += 1
            if run == self.depth:
                raise _Reached(map)

        try:
            with _after_each_layer(self.generator, reached):
                self.generator(x)
        except _Reached as end:
            return self.head(end.map.flatten(2).transpose(1, 2)).transpose(1, 2)
        raise AssertionError("the generator ran other layers than before")


class _Reached(Exception):
    """The last layer of a trunk has run: the others need not."""

    def __init__(self, map: Tensor):
        super().__init__()
        self.map = map


@contextmanager
def _after_each_layer(generator: nn.Module, seen: Callable[[nn.Module, object, Tensor], None]) -> Iterator[None]:
    """Inside the block `seen` is called after each layer that has no layers inside, however often it is used."""
    with ExitStack() as hooks:
        for layer in generator.modules():
            if not list(layer.children()):
                hooks.enter_context(layer.register_forward_hook(seen))
        yield


class Patterns(nn.Module):
    """An image (c, h, w) for each class, told which: x -> clip(x + tanh(u_y), -1, 1); at first no change.

    u is a sum over maps of four sizes, from an eighth of the image on, so that what is large in a pattern is learnt
    first: a generator paints that best.
    """

    def __init__(self, classes: int, shape: Sequence[int]):
        super().__init__()
        channels, self.size = shape[0], tuple(shape[1:])
        sizes = [[-(-side // part) for side in self.size] for part in (8, 4, 2, 1)]
        self.u = nn.ParameterList(nn.Parameter(torch.zeros(classes, channels, *size)) for size in sizes)

    @property
    def added(self) -> Tensor:
        """What stands for each class (classes, c, h, w)."""
        return torch.tanh(torch.stack([F.interpolate(u, self.size, mode="bilinear") for u in self.u]).sum(0))

    def forward(self, x: Tensor, y: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Images (n, c, h, w) of classes (n,), with so much of their patterns."""
        return (x + strength * self.added[y]).clamp(-1, 1)


def _backward(loss: Tensor) -> float:
    loss.backward()
    return loss.item()


def paint_first(
    networks: Sequence[tuple[Frozen, Source]],
    transform: NeuralFuse,
    data: Dataset,
    settings: GeneratorSettings,
    bits: int | None,
    seed: int,
    run: Run,
    arguments: dict,
) -> None:
    """The stages that the settings ask for, on a transform in place: `class_steps` of its trunk, `pattern_steps` of
    patterns, `paint_steps` to paint them; at rates of their own. The trunk follows Muon, which in 900 steps taught
    UNetS more of CIFAR-10's classes than Adam in 1,500.

    `networks` as of `train_generator`; each stage is kept in a file of its own (`Run`).
    """
    device = networks[0][0].device
    memory_format = layout(transform, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = Trunk(transform, data.train_x[:1].to(device), data.num_classes) if settings.class_steps else None
    patterns = Patterns(data.num_classes, data.input_shape)

    def classes(x: Tensor, y: Tensor, number: int) -> float:
        assert trunk is not None
        logits = trunk(x)
        return _backward(F.cross_entropy(logits, y[:, None].expand(-1, logits.shape[2])))

    def told(x: Tensor, y: Tensor, number: int) -> float:
        own, which = divmod(number, len(networks))
        faulty, source = networks[which]
        maps = (source(own * settings.maps + i) for i in range(settings.maps))
        # a generator that is not sure of the class paints it weakly
        strength = torch.empty(len(y), 1, 1, 1, device=device).uniform_(0.3, 1)
        return eopm_backward(faulty, lambda x: patterns(x, y, strength), x, y, maps, settings.maps, settings.weight)[1]

    def painted(x: Tensor, y: Tensor, number: int) -> float:
        return _backward(F.mse_loss(transform.added(x).float(), patterns.added.detach()[y]))

    def stage(name: str, module: nn.Module | None, steps: int, rate: float, backward: Callable[..., float]) -> None:
        if module is None or not steps:
            return
        module.to(device)
        falls: Callable[[int], float]
        optimizer: torch.optim.Optimizer
        if isinstance(module, Trunk):
            optimizer, falls = muon(module, rate, WEIGHT_DECAY), by_work([1] * steps).__getitem__
        else:
            optimizer = torch.optim.Adam(module.parameters(), rate, (0.5, 0.999))
            falls = partial(cosine, steps=steps)

        def step(number: int) -> Figures:
            module.train()
            x, y = batch_of(data, settings, seed, number)
            x, y = x.to(device, memory_format=memory_format), y.to(device)
            with seeded(seed, number, device), fake_quantized(transform, bits):
                with computing_in(settings.precision, device):
                    return {f"{name}_loss": backward(x, y, number)}

        kept = replace(run, path=None if run.path is None else f"{run.path}.{name}").checkpoints(arguments)
        train(module, optimizer, falls, steps, step, kept, progress=run.progress)

    with threads(settings.threads):
        stage("classes", trunk, settings.class_steps, CLASS_RATE, classes)
        stage("patterns", patterns, settings.pattern_steps, PATTERN_RATE, told)
        stage("paint", transform, settings.paint_steps, PAINT_RATE, painted)
