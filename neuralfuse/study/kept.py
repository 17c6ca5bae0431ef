"""The keys and values that a study's networks keep: their words, and the cells of a chip that hold them."""

from torch import Tensor, nn

from neuralfuse.quantized.cache import FaultyCache
from neuralfuse.quantized.formats import WordFormat
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.lowered import Die
from neuralfuse.study.memory import chip_map, silicon_of
from sram import protection
from sram.errors import InputError
from sram.faultmap import FaultMap
from sram.geometry import Geometry
from sram.protection import Layout

SAMPLE = 64  # training items that the scales of keys and values are taken from


def cache_of(study: StudyConfig, network: nn.Module, sample: Tensor) -> FaultyCache:
    """A network's keys and values in words of the study's format. InputError for a network that keeps none."""
    own = study.memories.get("cache")
    return FaultyCache(network, sample, WordFormat(name=(own and own.format) or "int"))


def cells_of(study: StudyConfig, cache: FaultyCache) -> Geometry:
    """The cells of the cache: each element of an item once, in banks as the study has them."""
    own = silicon_of(study, "cache")
    return cache.geometry(own.rows, own.columns, own.word_bits)


def check_keeps(study: StudyConfig, name: str, network: nn.Module, sample: Tensor) -> None:
    """Refuse a network that keeps nothing, or words that do not fit those of the memory."""
    try:
        cache = cache_of(study, network, sample)
    except InputError as error:
        raise InputError("study", f"networks.{name}", error.value, f"{error.allowed}, with rails.cache") from None
    cache.place(cells_of(study, cache))
    for found in study.protections:
        protection.parse(found.memories.get("cache", ()) or "none", Layout(cache.words.bits, "lsb_first", ()))


def kept_map(study: StudyConfig, cache: FaultyCache, die: Die, floor: float, first_bank: int) -> FaultMap:
    """The weak cells of a die's cache, whose banks come after those of the weights, down to a voltage."""
    cells, lowest = cells_of(study, cache), floor - die.drift
    made = chip_map(study, cells, die.structure, die.chip, lowest, first_bank, "cache")
    return made.drifted(die.drift) if die.drift else made


def put(
    study: StudyConfig, cache: FaultyCache, raw: FaultMap, name: str, voltage: float, epoch: int | None = None
) -> bool:
    """Give a cache what cells behind a protection do at a supply; whether any word can read wrong."""
    placed = cache.place(raw.geometry)
    chain = study.protection(name).memories.get("cache", ())
    shield = protection.parse(chain or "none", Layout(placed.bits, placed.bit_order, ()))
    now = shield.apply(raw)[0].at(voltage, epoch)
    element, bit, kind = placed.faults(now.cell, now.kind)
    cache.set_faults(element, bit, kind)
    return bool(len(element))
