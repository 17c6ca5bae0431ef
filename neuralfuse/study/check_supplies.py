"""The operating points of a study, and what hangs on their rails, looked up before anything is made."""

from neuralfuse.chips.memory import maps_of
from neuralfuse.study.config import StudyConfig
from neuralfuse.study.data import kind_of
from neuralfuse.study.memory import buffers_lowered, place_activations_of, sees_activations
from neuralfuse.study.rails import Buffer
from neuralfuse.study.supplies import curve_of_role, machine_of, operating_points, roles_of, supply_of
from simulator.logic_protection import checked_tiles
from simulator.mac_errors import mac_errors, stream_of
from simulator.timing import clock_hz, slack
from simulator.workload import Workload, linear
from sram import faultmap, structure
from sram.errors import InputError
from sram.protection import parse

_NOTHING = Workload("nothing", (linear("one", 1, 1, 1),))


def check_supplies(study: StudyConfig) -> None:
    """Refuse points that a machine cannot be run at, and memories or protections that are on none of the study's rails.

    Raises InputError.
    """
    _check_points(study)
    _check_cache(study)
    _check_memories(study)
    if buffers_lowered(study):
        _check_activations(study)


def _check_points(study: StudyConfig) -> None:
    units = {curve_of_role(study, role).unit for role in ("weights", *study.together)}
    if len(units) > 1:
        allowed = f"memories whose curves count in one unit, not in {' and '.join(sorted(units))}"
        raise InputError("study", "together", list(study.together), allowed)
    for name in study.accelerators:
        machine = machine_of(name, roles_of(study))
        for at in operating_points(study, name):
            if at.clock_hz is None and at.supply("logic").share < 1:
                raise InputError("study", "clock", None, "follow, or a number of Hz, where the logic is lowered")
            clock_hz(machine, at)
            if study.late_sums:
                mac_errors(slack(machine, at), stream_of(machine), machine.delay.corner)
    _check_late_sums(study)
    if study.adaptive and study.adaptive.margin_points is not None and (study.rails or study.operating_points):
        raise InputError("study", "adaptive.margin_points", study.adaptive.margin_points, "supplies that fall together")


def _check_late_sums(study: StudyConfig) -> None:
    if study.late_sums and any(config.activations != "int8" for config in study.networks):
        raise InputError(
            "study", "late_sums", True, "false, where networks compute in floats; int8 has the array's sums"
        )
    for protection in study.protections:
        if protection.logic is not None and not study.late_sums:
            key = f"protections.{protection.name}.logic"
            raise InputError("study", key, protection.logic, "none, unless late_sums: nothing is late")
        if protection.logic == "abft":
            for name in study.accelerators:
                checked_tiles(_NOTHING, machine_of(name, roles_of(study)))


def _check_cache(study: StudyConfig) -> None:
    """Refuse what keys and values in cells do not go with."""
    roles = roles_of(study)
    if "cache" not in roles:
        return
    if others := [role for role in roles if role in ("activations", "accumulators")]:
        allowed = "weights, cache, logic: a cache is of networks of float activations"
        raise InputError("study", f"rails.{others[0]}", "lowered with the cache", allowed)
    for config in study.networks:
        if config.activations != "float":
            allowed = "float, where the cache is lowered"
            raise InputError("study", f"networks.{config.name}.activations", config.activations, allowed)
    if "cache" in study.memories and study.memories["cache"].map is not None:
        raise InputError(
            "study", "memories.cache.map", study.memories["cache"].map, "none: the cache's chips are generated"
        )
    if study.sram.map is not None:
        raise InputError("study", "sram.map", study.sram.map, "generated chips, where the cache is lowered")
    _check_protected_cache(study)


def _check_protected_cache(study: StudyConfig) -> None:
    """Refuse protections that are none of keys and values."""
    for protection in study.protections:
        for key in ("neuralfuse", "batchnorm", "smaller", "fused", "cascade"):
            if getattr(protection, key) is not None:
                allowed = "sram alone, where the cache is lowered"
                raise InputError("study", f"protections.{protection.name}.{key}", "given", allowed)
        if (chain := protection.memories.get("cache", ())) and not parse(chain).words_as_stored:
            allowed = "what leaves words as they are stored (hardened_msb, ...): the cache has no code"
            raise InputError("study", f"protections.{protection.name}.sram.cache", list(chain), allowed)


def _check_memories(study: StudyConfig) -> None:
    lowered, allowed = buffers_lowered(study), "memories on a rail that the study names"
    named = {*lowered.values(), *({"cache"} & set(roles_of(study)))}
    for memory, own in study.memories.items():
        if own.format is not None and memory != "cache":
            raise InputError("study", f"memories.{memory}.format", own.format, "of the cache alone")
        if memory not in named:
            raise InputError("study", f"memories.{memory}", "given", allowed)
        if own.structure is not None:
            structure.structure(own.structure)
        if own.map is not None:
            _check_map(study, memory, own.map)
    for name in study.accelerators:
        for buffer in lowered:
            place_activations_of(study, _NOTHING, machine_of(name, roles_of(study)), buffer)
    for protection in study.protections:
        for memory, chain in protection.memories.items():
            key = f"protections.{protection.name}.sram.{memory}"
            if memory not in named:
                raise InputError("study", key, list(chain), allowed)
            shield = parse(chain)
            if shield.needs_regions or "masking" in shield.spec:
                raise InputError("study", key, list(chain), "none of single layers, and no masking: that is of weights")


def _check_map(study: StudyConfig, memory: Buffer, where: str) -> None:
    """Refuse measured chips that are none of this memory's."""
    key, buffers = f"memories.{memory}.map", [name for name, on in buffers_lowered(study).items() if on == memory]
    if len(buffers) > 1:
        raise InputError("study", key, where, "the map of one buffer: name accumulators among the rails, too")
    maps, unit = maps_of(where, key), curve_of_role(study, memory).unit
    if study.chips.numbers.stop > len(maps):
        allowed = f"at most {len(maps)}, the maps of {where}"
        raise InputError("study", "chips.evaluation", study.chips.evaluation, allowed)
    for path in maps:
        found = faultmap.load(path)
        if found.curve.unit != unit:
            raise InputError(path, "curve.unit", found.curve.unit, f"in {unit}, as the study's first")
        for name in study.accelerators:
            cells = place_activations_of(study, _NOTHING, machine_of(name, roles_of(study)), buffers[0]).geometry
            if found.geometry != cells:
                raise InputError(path, "geometry", found.geometry, f"{cells}, the {buffers[0]} of {name}")
            lowest = min(supply_of(study, name, at, memory) for at in operating_points(study, name))
            if not found.reaches(lowest - study.sram.drift):
                allowed = f"at least {found.voltage_floor:g}, where {path} ends"
                raise InputError("study", f"rails.{memory}", lowest, allowed)


def _check_activations(study: StudyConfig) -> None:
    """Where cells hold activations, these are words, and the chips are made."""
    for config in study.networks:
        if not kind_of(study.dataset).are_images:
            allowed = f"weights, cache, logic: items of {study.dataset.name} are no images, of which 8-bit networks are"
            lowered = next(iter(buffers_lowered(study).values()))
            raise InputError("study", f"rails.{lowered}", "lowered", allowed)
        if config.activations != "int8":
            allowed = "int8, where activations or accumulators are lowered: cells hold words"
            raise InputError("study", f"networks.{config.name}.activations", config.activations, allowed)
    generated = set(buffers_lowered(study).values()) - {name for name, own in study.memories.items() if own.map}
    if study.sram.map is not None and generated:
        allowed = f"generated chips, where other memories are lowered without a map: {', '.join(sorted(generated))}"
        raise InputError("study", "sram.map", study.sram.map, allowed)
    for protection in study.protections:
        if (fuse := protection.neuralfuse) is None:
            continue
        if fuse.own_faults is not None:
            allowed = "none, where activations are lowered"
            raise InputError("study", f"protections.{protection.name}.own_faults", fuse.own_faults, allowed)
        if sees_activations(study, fuse) and fuse.calibrate is not None and fuse.calibrate.knows < 1:
            allowed = "1, or sees: weights, where activations are lowered"
            raise InputError("study", f"protections.{protection.name}.knows", fuse.calibrate.knows, allowed)
