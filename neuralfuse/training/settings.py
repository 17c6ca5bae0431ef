"""Settings of trainings and fits: records that check themselves, whether a study gives them or Python does.

Each setting, its type, its bounds and its default stand here once. Nothing here loads torch.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sram.errors import InputError

# Bounds beyond which a number is a slip of the pen: it would run for years, or ask for more memory than there is.
Count = Annotated[int, Field(ge=1, le=10**8)]
Epochs = Annotated[int, Field(ge=1, le=10**5)]
Batch = Annotated[int, Field(ge=1, le=2**16)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Stage = Annotated[int, Field(ge=0, le=10**8)]
Pixels = Annotated[int, Field(ge=0, le=1024)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Phase = Annotated[
    tuple[Annotated[int, Field(ge=1, le=1024)], Annotated[float, Field(gt=0, le=10**5)]], Field(strict=False)
]  # YAML has lists
Precision = Literal["float32", "bfloat16"]  # names of torch types
PRECISIONS: tuple[str, ...] = get_args(Precision)


def cosine(step: int, steps: int) -> float:
    """From 1 at the first step to 0 at the last.

    >>> cosine(0, 10), round(cosine(5, 10), 9)
    (1.0, 0.5)
    """
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def paper_decay(step: int, steps: int) -> float:
    """StepLR(500, 0.96) of Sun et al."""
    return 0.96 ** (step // 500)


DECAYS = {"cosine": cosine, "paper": paper_decay}


@dataclass(frozen=True)
class Settings:
    """Settings that are refused, one by one, where they are not of the type or within the bounds of their field.

    >>> GeneratorSettings(steps=0)
    Traceback (most recent call last):
    ...
    sram.errors.InputError: training: steps = 0 is not allowed; allowed: greater than or equal to 1
    """

    about: ClassVar[str] = "training"

    def __post_init__(self) -> None:
        for name, field in _types(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, field.validate_python(value))
            except ValidationError as error:
                allowed = error.errors()[0]["msg"].removeprefix("Input should be ")
                raise InputError(self.about, name, value, allowed) from None

    @classmethod
    def read(cls, given: object) -> Self:
        """From a mapping, as a study has it."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise ValueError("a mapping of keys to values")
        names = [field.name for field in fields(cls)]
        for key, value in given.items():
            if key not in names:
                raise InputError(cls.about, str(key), value, "only the keys " + ", ".join(sorted(names)))
        try:
            return cls(**given)
        except TypeError:  # of a dataclass that is called with names of its fields: one without default is missing
            missing = next(name for name in names if name not in given and not hasattr(cls, name))
            raise InputError(cls.about, missing, None, "this key is required") from None


@functools.cache
def _types(kind: type) -> dict[str, TypeAdapter]:
    config, hints = ConfigDict(strict=True, allow_inf_nan=False), get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name], config=config) for field in fields(kind)}


def named(objective: object) -> tuple[object, dict | None]:
    """An objective as a study has it, a name or {name: its settings}, as name and settings.

    >>> named({"random_bit_errors": {"flip_rate": 0.01}}), named("adversarial")
    (('random_bit_errors', {'flip_rate': 0.01}), ('adversarial', None))
    """
    if isinstance(objective, dict) and len(objective) == 1:
        ((name, settings),) = objective.items()
        return name, settings or {}
    return objective, None


def own_objective(objective: object) -> str | None:
    """The `package.module:callable` that an objective is made from, if it is.

    >>> own_objective("mine.losses:hinge"), own_objective("adversarial")
    ('mine.losses:hinge', None)
    """
    name, _ = named(objective)
    return name if isinstance(name, str) and ":" in name else None


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """How a base network is trained.

    `shift` (pixels) and `flip` are the augmentation's. After each step weights are cut to [-clip, clip]. `precision` is
    of the products while training. `objective`: cross-entropy, or as `objectives.objective` takes it. `optimizer`: SGD
    with Nesterov momentum 0.9 along one cycle, or AdamW along it; or Muon for filters (`muon`). `phases`
    are (size of the images, epochs) in turn, in place of `epochs` at full size: small images cost less, and most is
    learnt on them; `shift` shrinks with them. `threads`: on a CPU, whatever the machine has; another number gives other
    last bits, and so another network.
    """

    epochs: Epochs = 20
    batch: Batch = 64
    learning_rate: Positive = 0.1
    weight_decay: Share = 5e-4
    shift: Pixels = 4
    flip: bool = True
    objective: Any = None
    clip: Positive | None = None
    precision: Precision = "float32"
    optimizer: Literal["sgd", "muon", "adamw"] = "sgd"
    phases: Annotated[tuple[Phase, ...], Field(strict=False)] = ()
    threads: Threads = 1


@dataclass(frozen=True)
class GeneratorSettings(Settings):
    """How a generator is trained for all chips: those of Sun et al. but for `steps`.

    `weight` is the paper's lambda, `maps` its N, `shift` and `flip` the augmentation's. `precision` of the products:
    `bfloat16` is for GPUs and for CPUs with instructions for it; weights and their steps stay float32. `objective`:
    EOPM, or one's own as `generator.objective` takes it. `threads` as of a network. `class_steps`, `pattern_steps` and
    `paint_steps` are of stages before EOPM (`painting`), which the paper has not.
    """

    steps: Count
    batch: Batch = 256
    maps: Batch = 10
    weight: Share = 5.0
    learning_rate: Positive = 1e-3
    decay: Literal["cosine", "paper"] = "paper"
    shift: Pixels = 4
    flip: bool = True
    objective: Any = None
    precision: Precision = "float32"
    threads: Threads = 1
    class_steps: Stage = 0
    pattern_steps: Stage = 0
    paint_steps: Stage = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.pattern_steps) != bool(self.paint_steps):
            raise InputError(self.about, "paint_steps", self.paint_steps, "some with pattern_steps, none without")

    @property
    def one_stage(self) -> bool:
        """Whether EOPM is all, as in the paper."""
        return not (self.class_steps or self.pattern_steps)


@dataclass(frozen=True)
class CalibrationSettings(Settings):
    """How a transform is fitted to a chip.

    `images` of the training images are used (None: all), a random choice that depends on the seed alone.
    `supervision`: their `labels`; or none, where the chip's answers to the transformed images are drawn to the clean
    network's answers to the plain ones: image for image (`outputs`, Kullback-Leibler), or only in the mean and
    covariance of the logits over a batch (`statistics`). `learning_rate` None is 0.05 for numbers of pixels or
    channels and 0.005 for a generator. `precision` is of the products while fitting.

    `access`: `gradient` through the known faults; or outputs of the chip alone, by `queries.spsa` or
    `queries.evolution`. `queries` is the first on a simulated chip and the second on a device. Both ask along
    `directions` random directions a step, `distance` away to either side (None: 0.1 for spsa, in units of a pixel in
    [-1, 1]; 0.05 for evolution, of the transform's numbers).
    """

    about: ClassVar[str] = "calibrate"

    steps: Count = 300
    batch: Batch = 128
    learning_rate: Positive | None = None
    images: Count | None = None
    supervision: Literal["labels", "outputs", "statistics"] = "labels"
    access: Literal["gradient", "queries", "spsa", "evolution"] = "gradient"
    precision: Precision = "float32"
    directions: Batch = 4
    distance: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in (("supervision", "statistics"), ("precision", "bfloat16")):
            if self.access != "gradient" and getattr(self, key) == value:
                raise InputError(self.about, "access", self.access, f"gradient, with {key} {value}")


@dataclass(frozen=True)
class HeldOutSettings(Settings):
    """What a generator's training is watched on: the best generator is kept, and `patience` times without a better one
    end the training."""

    images: Count = 500  # of the training images, set apart
    chips: Count = 4  # training chips that no step draws
    every: Count = 50  # steps
    patience: Count = 10
