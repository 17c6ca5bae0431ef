"""A study as a file: what is swept, with unknown keys refused and every error naming file, key, value and what is
allowed.

Pydantic lives at this edge only; everything behind it takes plain values and frozen dataclasses.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from neuralfuse.chips.memory import FIRST_TRAINING_CHIP, curve_of
from neuralfuse.quantized.formats import WIDTHS, WordFormat
from neuralfuse.study.digest import digest
from neuralfuse.study.rails import (
    MOST_VOLTAGE,
    Buffer,
    Clock,
    MemoryConfig,
    PointConfig,
    Role,
    Supplies,
    with_weight_voltages,
)
from neuralfuse.study.second import CascadeConfig, FusedConfig, Other
from neuralfuse.study.short_forms import (
    DEFAULT_ACCELERATORS,
    SECOND,
    _beside,
    _calibrated,
    _of_maps,
    _trained_at_rates,
    _with_voltages,
    nominal_of,
)
from neuralfuse.study.strict import Hash, Strict, Unhashed, each_once, one_of
from neuralfuse.training.settings import (
    Batch,
    CalibrationSettings,
    Count,
    GeneratorSettings,
    HeldOutSettings,
    NetworkSettings,
    Settings,
    named,
)
from sram.errors import InputError
from sram.failure import FailureCurve
from sram.names import check_names

MOST_SIZE = 1024  # that of neuralfuse.data.images, which loads torch
MOST_POINTS = 100_000
MEASURED = "measured"  # in place of a structure, where chips are given
Format = Literal["bf16", "fp8_e4m3", "fp8_e5m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "mxfp4"]  # WIDTHS
TWO = "another of the study's networks, which has one only"


def _checked(name: str) -> str:
    check_names("study", [name])
    return name


Name = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_checked)]


class NetworkConfig(Strict):
    """A frozen base network: a built-in name, `package.module:callable`, or a .pt2 / .onnx file."""

    name: Annotated[Name, Unhashed("weights")]
    # What to build, if the name is one's own (the same network trained in two ways); named apart, with its sources.
    build: Annotated[str | None, Unhashed("weights")] = None
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of networks.build
    bits: Annotated[int, Field(ge=2, le=16)] = 8  # of an integer at most 8; a format has its own
    per_channel: bool = False
    # {argument of its `forward`: input of the dataset} where items have several; None: all, in their order
    inputs: Annotated[dict[str, str] | None, Field(min_length=1)] = None
    output: int | str | None = None  # which of its answers, where it returns a tuple or a dict of them
    group: Annotated[int | None, Field(ge=2, le=2**20)] = None  # one scale for each run of so many words of a row
    format: Format | None = None  # of a word, if no integer
    # int8: what a layer is given is rounded to words, as on a device
    activations: Annotated[Literal["float", "int8"], Unhashed("weights")] = "float"
    checkpoint: str | None = None  # weights; without it the network is trained
    start: str | None = None  # weights that its training goes on from
    training: Annotated[NetworkSettings, BeforeValidator(NetworkSettings.read)] = NetworkSettings()

    @model_validator(mode="before")
    @classmethod
    def name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def bits_of_the_format(cls, value: object) -> object:
        width = WIDTHS.get(str(value.get("format"))) if isinstance(value, dict) else None
        return {"bits": width, **value} if width and isinstance(value, dict) else value

    @model_validator(mode="after")
    def trained_or_given(self) -> Self:
        if self.start is not None and self.checkpoint is not None:
            raise ValueError(f"start {self.start}: not with checkpoint, which is not trained")
        return self

    @property
    def words(self) -> WordFormat:
        """How its weights are stored."""
        return WordFormat(self.bits, self.per_channel, self.group, self.format or "int")

    @model_validator(mode="after")
    def words_of_one_kind(self) -> Self:
        try:
            width = self.words.bits
        except InputError as error:
            raise ValueError(f"{error.key} {error.value}: {error.allowed}") from None
        if width != self.bits:
            raise ValueError(f"bits {self.bits}: {width} with format {self.format}")
        own = [key for key in ("format", "group") if getattr(self, key) is not None]
        if own and self.activations == "int8":
            raise ValueError(
                f"activations int8: not with {own[0]}; the array takes integers, scaled by filter or tensor"
            )
        if own and named(self.training.objective)[0] == "random_bit_errors":
            raise ValueError(
                f"{own[0]}: not with training.objective random_bit_errors, of integers scaled by filter or tensor"
            )
        return self

    @model_validator(mode="after")
    def words_of_one_width(self) -> Self:
        if self.activations == "int8" and self.bits != 8:
            raise ValueError(f"activations int8: needs bits 8, the width of the array's operands, not {self.bits}")
        return self


class CorruptionConfig(Strict):
    """What is done to the test images, and to them alone (`data.corruption`)."""

    kind: Literal["gaussian_noise", "blur", "brightness", "contrast", "pixelate"]
    severity: Annotated[int, Field(ge=1, le=5)] = 3
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # of noise


class DatasetConfig(Strict):
    """Images, or a task of another kind: a built-in dataset, one of an entry point, or one's own as
    `package.module:callable`."""

    name: str = "digits"
    root: str | None = None
    # Edge of images of `folders` and `gtsrb`; characters of a window of `text`.
    size: Annotated[int, Field(ge=1, le=MOST_SIZE)] | None = None
    test_images: Count | None = None  # so many, drawn once and for all; None: all
    corruption: CorruptionConfig | None = None
    # What networks see is (pixel - mean) / std of pixels in [0, 1], a number a channel; None: pixels in [-1, 1].
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    std: tuple[Annotated[float, Field(gt=0, le=10)], ...] | None = None

    @model_validator(mode="after")
    def both_or_none(self) -> Self:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std: both, with a number of each for each channel")
        return self


class SramConfig(Strict):
    """The weight SRAM: arrays of rows x columns cells on a failure curve."""

    curve: str = "ibm14"
    # Measured chips, a map or a folder of maps, instead of generated ones; trainings still draw theirs from the curve.
    map: str | None = None
    structures: Annotated[tuple[str, ...], Unhashed("row")] = ("column", "iid")
    rows: Annotated[int, Field(ge=1, le=2**20)] = 512
    columns: Annotated[int, Field(ge=1, le=2**20)] = 64
    word_bits: Annotated[int, Field(ge=8, le=2**16)] = 64
    mode: Literal["stuck", "flip"] = "stuck"
    stuck_at_one: Annotated[float, Field(ge=0, le=1)] = 0.5
    schedule: Literal["streamed", "resident", "paper"] = "streamed"
    weights_per_cell: Literal[16, 1] = 16  # of a layer, with schedule `paper`
    # What has become of a chip since it was characterised: cells fail at voltages higher by `drift` (the curve's unit),
    # and `noise`, a share of their spread, is drawn anew at each access. What is fitted to a chip knows neither.
    drift: Annotated[float, Field(ge=0, le=MOST_VOLTAGE)] = 0.0
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("structures")
    @classmethod
    def some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one structure")
        return each_once(value)

    @model_validator(mode="after")
    def one_weight_with_the_papers_mapping(self) -> Self:
        if self.weights_per_cell == 1 and self.schedule != "paper":
            raise ValueError("weights_per_cell 1: only with schedule paper")
        return self


class ChipsConfig(Strict):
    """How many chips are measured."""

    # Chips 0, 1, ...; training chips are numbered from FIRST_TRAINING_CHIP, so that the two never meet.
    evaluation: Annotated[int, Field(ge=1, lt=FIRST_TRAINING_CHIP)] = 20
    first: Annotated[int, Field(ge=0, lt=FIRST_TRAINING_CHIP)] = 0  # the number of the first
    wave: Annotated[int, Field(ge=2, lt=FIRST_TRAINING_CHIP)] = 5  # adaptive runs decide anew after so many chips

    @model_validator(mode="after")
    def below_training_chips(self) -> Self:
        if self.first + self.evaluation > FIRST_TRAINING_CHIP:
            raise ValueError(f"first {self.first}: with evaluation at most {FIRST_TRAINING_CHIP:,}; then come others")
        return self

    @property
    def numbers(self) -> range:
        """Of the chips that are measured."""
        return range(self.first, self.first + self.evaluation)


class AdaptiveConfig(Strict):
    """Stop a point early, and look closer where accuracy leaves the margin."""

    half_width_points: Annotated[float, Field(ge=0.01, le=100)] | None = (
        None  # of the 95% interval over chips, in accuracy points
    )
    gain_half_width_points: Annotated[float, Field(ge=0.01, le=100)] | None = (
        None  # the same of what a protection wins over `none` on the same chips and images
    )
    margin_points: Annotated[float, Field(gt=0, le=100)] | None = (
        None  # bisect around the lowest voltage within this of clean
    )
    voltage_step: Annotated[float, Field(ge=1e-6, le=MOST_VOLTAGE)] = (
        0.005  # until the bracket is this narrow, in the curve's unit
    )


class OptimizeConfig(Strict):
    """What `neuralfuse optimize` looks for in the study's grid: least energy at a scope under these constraints."""

    accuracy_points: Annotated[float, Field(gt=0, le=100)] = 1.0  # mean accuracy over chips within so many of clean
    share_of_chips: Annotated[float, Field(gt=0, le=1)] | None = None  # so many within these points, each for itself
    inferences_per_second: Annotated[float, Field(gt=0)] | None = None  # at least
    scope: Literal["weight_sram", "sram", "chip", "system"] = "chip"
    # Share of the grid (points x chips x images) that the search may measure; 1: until nothing is open.
    evaluations: Annotated[float, Field(gt=0, le=1)] = 1.0


class EachChipConfig(Strict):
    """What `neuralfuse yield` asks of every chip, and what sorting chips by the answer is held against."""

    within_points: Annotated[float, Field(gt=0, le=100)] = 1.0  # a chip's accuracy within so many points of clean
    share_of_chips: Annotated[float, Field(gt=0, le=1)] = 0.95  # that hold at the one supply for all
    scope: Literal["weight_sram", "sram", "chip", "system"] = "chip"


@dataclass(frozen=True)
class CalibrateConfig(CalibrationSettings):
    """A transform fitted to each chip, what it starts from, and at which voltages it is made."""

    warm: bool = False  # start from the generator trained for all chips (or its checkpoint), not from an untrained one
    at: Literal["each", "lowest", "all"] = "each"  # one a voltage; the lowest voltage's for all; one made at all
    knows: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the wrong bits

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.access != "gradient" and self.at == "all":
            raise InputError(self.about, "access", self.access, "gradient, at all voltages at once")
        if self.access != "gradient" and self.knows < 1:
            raise InputError(self.about, "knows", self.knows, "1, where the chip itself answers the queries")

    def voltages(self, voltage: float, swept: tuple[float, ...]) -> tuple[float, ...]:
        """Where the transform that is used at `voltage` is made, in a study of the voltages `swept`."""
        return {"each": (voltage,), "lowest": (min(swept),), "all": swept}[self.at]


def _others(value: dict) -> dict[str, Any]:
    """The chains of a protection's other memories, where `sram` names them by memory."""
    return {memory: specs for memory, specs in value["sram"].items() if memory != "weights"}


def _or_none(kind: type[Settings]) -> BeforeValidator:
    return BeforeValidator(lambda given: None if given is None else kind.read(given))


def _steps_or_none(given: object) -> GeneratorSettings | None:
    """Nothing is said where nothing is trained; `prepare` asks for `steps` where something is."""
    return None if given in (None, {}) else GeneratorSettings.read(given)


class NeuralFuseConfig(Strict):
    """A generator trained once for all chips, or fitted to each (`calibrate`).

    `sees`: the faults of all memories that the study lowers, through the words and sums that they are in; or those of
    the `weights` alone, through a network of float activations.

    `per_voltage`: one for all `train_voltages` in turn (None), one for `each` of them, or one whose channels are scaled
    and shifted for the supply (`film`). `own_faults`: its words lie in the low-voltage memory too, and it was `trained`
    for that or not; None: it runs at nominal voltage.
    """

    generator: str
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of generators.build
    bits: Annotated[int, Field(ge=2, le=8)] | None = 8
    training: Annotated[GeneratorSettings | None, BeforeValidator(_steps_or_none)] = None
    train_voltages: tuple[float, ...] | None = None  # training chips run at these in turn; None: at the study's
    per_voltage: Literal["each", "film"] | None = None
    own_faults: Literal["trained", "untrained"] | None = None
    sees: Literal["all", "weights"] = "all"
    held_out: Annotated[HeldOutSettings | None, _or_none(HeldOutSettings)] = None
    train_on: tuple[str, ...] | None = None  # surrogates: others of the study's networks, in turn; None: each its own
    checkpoint: str | None = None
    calibrate: Annotated[CalibrateConfig | None, _or_none(CalibrateConfig), Unhashed("weights")] = None

    @model_validator(mode="after")
    def go_together(self) -> Self:
        if self.per_voltage is not None and len(set(self.train_voltages or ())) < 2:
            raise ValueError(f"per_voltage {self.per_voltage}: needs train_voltages, two or more")
        for key in ("per_voltage", "own_faults"):
            if getattr(self, key) and self.calibrate is not None:
                raise ValueError(f"{key}: not with calibrate, which fits a transform to each chip and voltage")
        if self.own_faults == "trained" and self.training and self.training.objective is not None:
            raise ValueError("own_faults trained: not with training.objective, for it is one itself")
        several = [key for key in ("per_voltage", "own_faults") if getattr(self, key)]
        if several and self.training and not self.training.one_stage:
            raise ValueError(f"{several[0]}: not with training in stages (class_steps, pattern_steps)")
        if self.own_faults and self.bits is None:
            raise ValueError("own_faults: needs bits, of the words that the faults are in")
        return self

    def left_out(self, of: Hash) -> set[str]:
        untrained = dict.fromkeys(("training", "sees"), self.starts_untrained)
        idle = untrained | {"own_faults": self.own_faults != "trained"}  # nothing is trained so
        return super().left_out(of) | {key for key, unused in idle.items() if unused and of == "weights"}

    @property
    def starts_untrained(self) -> bool:
        """Whether nothing is trained before chips are seen."""
        return self.calibrate is not None and not self.calibrate.warm

    @field_validator("train_on", mode="before")
    @classmethod
    def one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or None

    def trained_on(self, network: str) -> tuple[str, ...]:
        """Names of the networks that the generator before `network` was trained on."""
        return self.train_on or (network,)


class BatchNormConfig(Strict):
    """The network's BatchNorm statistics taken anew on each chip at each voltage, from so many training images."""

    batches: Count = 8
    batch: Batch = 128


class ProtectionConfig(Strict):
    """One protection: at most one input transform (NeuralFuse), or statistics of the chip's own, any chain of SRAM
    transforms, and at most one use of a second network at nominal supply (`smaller`, `fused`, `cascade`)."""

    name: Name
    neuralfuse: NeuralFuseConfig | None = None
    # Specs of sram.protection, of the weight memory and of others; they act in the order of their hardware.
    sram: tuple[str, ...] = ()
    memories: dict[Buffer, tuple[str, ...]] = Field(default_factory=dict)
    batchnorm: BatchNormConfig | None = None
    logic: Literal["razor", "abft"] | None = None  # what finds late sums, where the study has such
    smaller: Other | None = None  # this network in place of the one at low voltage
    fused: FusedConfig | None = None
    cascade: CascadeConfig | None = None

    @property
    def second(self) -> str | None:
        """The network that runs at nominal supply beside the one at low voltage, or in its place."""
        return self.smaller or getattr(self.fused or self.cascade, "network", None)

    @model_validator(mode="after")
    def goes_with_a_second(self) -> Self:
        uses = [key for key in SECOND if getattr(self, key) is not None]
        if len(uses) > 1:
            raise ValueError(f"{uses[1]}: not with {uses[0]}, one use of a second network at a time")
        low = [key for key in ("neuralfuse", "sram", "memories", "batchnorm", "logic") if getattr(self, key)]
        if self.smaller is not None and low:
            raise ValueError(f"smaller: not with {low[0]}, for nothing runs at low voltage then")
        if uses and self.batchnorm is not None:
            raise ValueError(f"{uses[0]}: not with batchnorm")
        fuse = self.neuralfuse
        if uses and fuse is not None and fuse.own_faults is not None:
            raise ValueError(f"{uses[0]}: not with own_faults")
        if self.fused is not None and self.fused.fit == "per_lot" and fuse is not None and fuse.calibrate is not None:
            raise ValueError("fused.fit per_lot: not with calibrate, which fits to each chip; allowed: per_chip")
        return self

    @model_validator(mode="after")
    def one_beside_the_memory(self) -> Self:
        if self.batchnorm is not None and self.neuralfuse is not None:
            raise ValueError("batchnorm: not with neuralfuse, in front of the same network")
        return self

    @model_validator(mode="before")
    @classmethod
    def short_forms(cls, value: object) -> object:
        """`none`, `secded72` and `calibrated(affine)` are protections by name; `{neuralfuse: {...}}` takes the
        generator's name."""
        if value == "none":
            return {"name": "none"}
        if value in ("razor", "abft"):
            return {"name": value, "logic": value}
        if isinstance(value, str) and value.startswith("calibrated("):
            return {"name": value, "neuralfuse": _calibrated(value)}
        if isinstance(value, str) and value.startswith(tuple(f"{use}(" for use in SECOND)):
            return {"name": value, **_beside(value)}
        if isinstance(value, str):
            return {"name": value, "sram": [value]}
        if isinstance(value, dict) and isinstance(value.get("fused"), str):
            value = {**value, "fused": {"network": value["fused"]}}
        if isinstance(value, dict) and isinstance(value.get("sram"), dict):
            value = {**value, "sram": value["sram"].get("weights", []), "memories": _others(value)}
        if isinstance(value, dict) and "name" not in value:
            parts = list(value.get("sram") or [])
            parts += [f"{spec} of {role}" for role, specs in value.get("memories", {}).items() for spec in specs]
            inner = value.get("neuralfuse")
            if isinstance(inner, dict) and "generator" in inner:
                generator = str(inner["generator"])
                parts.append(f"calibrated({generator})" if inner.get("calibrate") is not None else generator)
            parts += ["batchnorm"] if value.get("batchnorm") is not None else []
            parts += [str(value["logic"])] if value.get("logic") else []
            for use in SECOND:
                other = value.get(use)
                name = other.get("network") if isinstance(other, dict) else other
                parts += [f"{use}({name})"] if name else []
            return {**value, "name": "+".join(parts) or "none"}
        return value


class StudyConfig(Strict):
    """Everything that a sweep needs to know."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dataset: DatasetConfig = DatasetConfig()
    metric: str = "accuracy"  # a name of quantized.metric.METRICS, or `package.module:name` of one's own
    networks: tuple[NetworkConfig, ...]
    accelerators: tuple[str, ...] = DEFAULT_ACCELERATORS
    sram: SramConfig = SramConfig()
    # Of the weight memory; with `rails` every combination, with `together` in step; or one point after another.
    voltages: Annotated[tuple[float, ...], Unhashed("folder")]
    rails: Annotated[dict[Role, Supplies], Field(default_factory=dict), Unhashed("folder")]
    together: Annotated[tuple[Role, ...], Unhashed("folder")] = ()
    operating_points: Annotated[tuple[PointConfig, ...], Unhashed("folder")] = ()
    clock: Annotated[Clock, Unhashed("folder")] = None
    # A clock in Hz may be faster than the array's critical path; its sums are late then.
    late_sums: Annotated[bool, Unhashed("folder")] = False
    memories: dict[Buffer, MemoryConfig] = Field(default_factory=dict)
    chips: Annotated[ChipsConfig, Unhashed("folder")] = ChipsConfig()
    protections: Annotated[tuple[ProtectionConfig, ...], Unhashed("folder")] = (ProtectionConfig(name="none"),)
    adaptive: Annotated[AdaptiveConfig | None, Unhashed("folder")] = None
    optimize: Annotated[OptimizeConfig | None, Unhashed("folder")] = None
    each_chip: Annotated[EachChipConfig | None, Unhashed("folder")] = None
    device: str = "cpu"  # where torch computes: cpu, cuda, cuda:1, ...
    # Layers of so many images still fit into a core's caches.
    batch_size: Annotated[Batch, Unhashed("folder")] = 128

    @model_validator(mode="before")
    @classmethod
    def rates_become_voltages(cls, value: object) -> object:
        """`cell_fault_rates` and `train_cell_fault_rates` stand for the voltages at which the curve has these rates."""
        if not isinstance(value, dict):
            return value
        value = _of_maps(value)
        sram, usual = value.get("sram"), SramConfig().curve
        curve = sram.get("curve", usual) if isinstance(sram, dict) else usual
        machines = value.get("accelerators", [])
        value = _with_voltages(value, "cell_fault_rates", "voltages", curve, machines)
        value = with_weight_voltages(value, lambda: nominal_of(curve, machines))
        protections = value.get("protections")
        if isinstance(protections, list):
            value = {**value, "protections": [_trained_at_rates(entry, curve, machines) for entry in protections]}
        return value

    @model_validator(mode="after")
    def surrogates_are_networks(self) -> Self:
        names = [network.name for network in self.networks]
        for protection in self.protections:
            for name in (protection.neuralfuse and protection.neuralfuse.train_on) or ():
                if name not in names:
                    raise InputError("study", f"protections.{protection.name}.train_on", name, ", ".join(names))
        return self

    @model_validator(mode="after")
    def second_is_another_network(self) -> Self:
        names = [network.name for network in self.networks]
        for protection in self.protections:
            other = protection.second
            if other is not None and (other not in names or len(names) == 1):
                use = next(use for use in SECOND if getattr(protection, use) is not None)
                key = f"protections.{protection.name}.{use}" + (".network" if use != "smaller" else "")
                known = [name for name in names if name != other]
                raise InputError("study", key, other, one_of(other, known, "networks") if known else TWO)
        return self

    @field_validator("networks", "accelerators", "protections", "voltages")
    @classmethod
    def not_empty(cls, value: tuple) -> tuple:
        if not value:
            raise ValueError("at least one entry")
        return value

    @field_validator("accelerators")
    @classmethod
    def accelerators_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(value)

    @field_validator("voltages")
    @classmethod
    def finite_and_falling(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < v <= MOST_VOLTAGE for v in value):
            raise ValueError(f"voltages above 0 and up to {MOST_VOLTAGE:g}, in the unit of the curve")
        return tuple(sorted(set(value), reverse=True))

    @model_validator(mode="after")
    def each_rail_once(self) -> Self:
        each_once((*self.together, *self.rails))
        points = len(self.voltages) * math.prod(len(supplies) for supplies in self.rails.values())
        if points > MOST_POINTS:
            raise ValueError(f"rails: at most {MOST_POINTS:,} combinations of supplies, not {points:,}")
        if self.operating_points and (self.rails or self.together):
            raise ValueError("operating_points: not with rails or together, which make points of their own")
        named = {point.weights for point in self.operating_points}
        if self.operating_points and set(self.voltages) - named and len(set(self.voltages) - named) != (None in named):
            raise ValueError("operating_points: not with voltages, which are those of their weights")
        return self

    @field_validator("protections", "networks")
    @classmethod
    def names_differ(cls, value: tuple) -> tuple:
        names = [entry.name for entry in value]
        if len(set(names)) < len(names):
            raise ValueError("each entry needs a name of its own (key `name`)")
        return value

    def network(self, name: str) -> NetworkConfig:
        """The network of this name."""
        return next(network for network in self.networks if network.name == name)

    def protections_of(self, network: str) -> tuple[ProtectionConfig, ...]:
        """Those that a network is measured with: without those whose second network it is itself."""
        return tuple(protection for protection in self.protections if protection.second != network)

    def protection(self, name: str) -> ProtectionConfig:
        """The protection of this name."""
        return next(protection for protection in self.protections if protection.name == name)

    @property
    def curve(self) -> FailureCurve:
        """The failure curve, in whose unit all voltages are."""
        return curve_of(self.sram.curve)

    @property
    def forms(self) -> tuple[str, ...]:
        """What the chips of the evaluation have in common, by name: structures, or that they were measured."""
        return self.sram.structures if self.sram.map is None else (MEASURED,)

    @property
    def voltage_floor(self) -> float:
        """Lowest supply that is swept, in the curve's unit."""
        return min(self.voltages)

    def identity(self) -> str:
        """Hash of what the folder's results are about. Voltages, chips, protections and batch size may grow later."""
        return digest(self.given("folder"))
