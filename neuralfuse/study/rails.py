"""Which supplies a study lowers, and what the memories on them are made of."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from neuralfuse.study.strict import Strict
from sram.errors import InputError

MOST_VOLTAGE = 10.0  # in volts and in multiples of Vmin
Role = Literal["weights", "activations", "accumulators", "cache", "logic"]  # what hangs on a rail
Buffer = Literal["activations", "accumulators", "cache"]  # of those that hold no weights
ROLES: tuple[Role, ...] = ("weights", "activations", "accumulators", "cache", "logic")
Supply = Annotated[float, Field(gt=0, le=MOST_VOLTAGE)]


def _falling(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("at least one entry")
    return tuple(sorted(set(values), reverse=True))


def _a_clock(value: float | str | None) -> float | str | None:
    if value is None or value == "follow" or (not isinstance(value, str) and 0 < value < 1e15):
        return value
    raise ValueError("follow, or a number of Hz")


Supplies = Annotated[tuple[Supply, ...], AfterValidator(_falling)]
Clock = Annotated[float | str | None, AfterValidator(_a_clock)]


class PointConfig(Strict):
    """An operating point: the supplies of rails, each in the unit of its curve, nominal where left out; and the
    clock."""

    weights: Supply | None = None
    activations: Supply | None = None
    accumulators: Supply | None = None
    cache: Supply | None = None
    logic: Supply | None = None
    clock: Clock = None


class MemoryConfig(Strict):
    """The buffer of activations, that of accumulators and outputs, or the cache of keys and values, where it differs
    from the weight memory."""

    curve: str | None = None
    # That of measured chips, a map or a folder of maps, instead of a generated one.
    map: str | None = None
    structure: str | None = None
    rows: Annotated[int, Field(ge=1, le=2**20)] | None = None
    columns: Annotated[int, Field(ge=1, le=2**20)] | None = None
    word_bits: Annotated[int, Field(ge=8, le=64, multiple_of=8)] | None = None
    mode: Literal["stuck", "flip"] | None = None
    stuck_at_one: Annotated[float, Field(ge=0, le=1)] | None = None
    format: Literal["int", "bf16", "fp8_e4m3", "fp8_e5m2"] | None = None  # of words of the cache; int: of 8 bits


def with_weight_voltages(value: dict[str, Any], nominal: Callable[[], float]) -> dict[str, Any]:
    """The mapping with `voltages`, those of the weights at all points, where rails or points say them; `nominal` gives
    the voltage where they do not."""
    rails, points = value.get("rails"), value.get("operating_points")
    rails = dict(rails) if isinstance(rails, dict) else {}
    if (own := rails.pop("weights", None)) is not None:
        if "voltages" in value:
            raise InputError("study", "rails.weights", own, "only one of it and voltages")
        return value | {"voltages": own, "rails": rails}
    if "voltages" in value or not (rails or isinstance(points, list)):
        return value
    given = [point.get("weights") for point in points or [] if isinstance(point, dict)]
    found = {
        nominal() if each is None else each for each in given or [None] if each is None or type(each) in (int, float)
    }
    return value | {"voltages": sorted(found)}
