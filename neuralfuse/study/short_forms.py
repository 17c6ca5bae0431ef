"""What a study may say in short: calibrated(affine), cell fault rates instead of voltages."""

import re
from typing import Any

from neuralfuse.chips.memory import curve_of, maps_of
from simulator import userfile
from simulator.accelerator import accelerator
from simulator.operating_point import nominal_on
from sram import faultmap
from sram.errors import InputError
from sram.failure import FailureCurve

DEFAULT_ACCELERATORS = ("paper",)
SECOND = ("smaller", "fused", "cascade")  # how a second network may be used
WARM_STEPS = 2000  # of the training for all chips before a fit, where a short form asks for one


def _calibrated(text: str) -> dict[str, Any]:
    """The NeuralFuseConfig that a short form stands for. `warm` is true or the path of a checkpoint.

    >>> _calibrated("calibrated(ConvS, width=8, at=all, steps=200)")
    {'generator': 'ConvS', 'options': {'width': 8}, 'calibrate': {'at': 'all', 'steps': 200}}
    >>> _calibrated("calibrated(ConvS, warm=generic.safetensors)")
    {'generator': 'ConvS', 'options': {}, 'calibrate': {'warm': True}, 'checkpoint': 'generic.safetensors'}
    >>> _calibrated("calibrated(ConvS, warm=true)")
    {'generator': 'ConvS', 'options': {}, 'calibrate': {'warm': True}, 'training': {'steps': 2000}}
    """
    inside = re.fullmatch(r"calibrated\(\s*([^\s,()=]+)\s*((?:,[^,()=]+=[^,()=]+)*)\)", text)
    if inside is None:
        raise ValueError(f"{text!r}: calibrated(GENERATOR) or calibrated(GENERATOR, KEY=VALUE, ...)")
    pairs = dict(pair.split("=") for pair in inside[2].split(",")[1:])
    try:
        values = {key.strip(): userfile.parse(value, text) for key, value in pairs.items()}
    except InputError:
        raise ValueError(f"{text!r}: values as YAML has them, such as steps=200 or warm=true") from None
    options = {"width": values.pop("width")} if "width" in values else {}
    fuse = {"generator": inside[1], "options": options, "calibrate": values}
    if isinstance(start := values.get("warm"), str):
        values["warm"] = True
        return fuse | {"checkpoint": start}
    return fuse | {"training": {"steps": WARM_STEPS}} if start else fuse


def _beside(text: str) -> dict[str, Any]:
    """The keys that a second network in short stands for; a bare number is the threshold of a cascade.

    >>> _beside("smaller(resnet8)"), _beside("cascade(resnet8, 0.9)")
    ({'smaller': 'resnet8'}, {'cascade': {'network': 'resnet8', 'threshold': 0.9}})
    >>> _beside("fused(resnet8, fit=per_chip, images=64)")
    {'fused': {'network': 'resnet8', 'fit': 'per_chip', 'images': 64}}
    """
    inside = re.fullmatch(r"(\w+)\(\s*([^\s,()=]+)\s*((?:,[^,()]+)*)\)", text)
    if inside is None:
        raise ValueError(f"{text!r}: smaller(NETWORK), fused(NETWORK, KEY=VALUE, ...) or cascade(NETWORK, THRESHOLD)")
    use, network, rest = inside.groups()
    pairs = [part.rpartition("=") for part in rest.split(",")[1:]]
    try:
        values = {key.strip() or "threshold": userfile.parse(value, text) for key, _, value in pairs}
    except InputError:
        raise ValueError(f"{text!r}: values as YAML has them, such as images=200") from None
    if use == "smaller":
        if values:
            raise ValueError(f"{text!r}: smaller(NETWORK), without more")
        return {use: network}
    return {use: {"network": network} | values}


def _of_maps(value: dict) -> dict:
    """The study with what its measured chips say, where it does not say so itself: curve, cells, how many they are."""
    if isinstance(memories := value.get("memories"), dict):
        value = value | {"memories": {name: _of_map(own, f"memories.{name}.map") for name, own in memories.items()}}
    sram, chips = value.get("sram"), value.get("chips", {})
    if not (isinstance(sram, dict) and isinstance(sram.get("map"), str) and isinstance(chips, dict)):
        return value
    return value | {"sram": _of_map(sram), "chips": {"evaluation": len(maps_of(sram["map"]))} | chips}


def _of_map(memory: object, key: str = "sram.map") -> object:
    """A memory's mapping with what its map says."""
    if not (isinstance(memory, dict) and isinstance(memory.get("map"), str)):
        return memory
    first = maps_of(memory["map"], key)[0]
    cells = faultmap.load(first).geometry
    said = {"curve": str(first), "rows": cells.rows, "columns": cells.columns, "word_bits": cells.word_bits}
    return said | memory


def _with_voltages(value: dict, rates: str, voltages: str, name: object, machines: object) -> dict:
    """The mapping with its key `rates` replaced by `voltages` on this curve; a rate of 0 is the nominal supply."""
    if rates not in value:
        return value
    given = value[rates]
    if voltages in value:
        raise InputError("study", rates, given, f"only one of {voltages} and {rates}")
    if not isinstance(given, list) or not all(isinstance(p, int | float) and 0 <= p < 0.5 for p in given):
        raise InputError("study", rates, given, "a list of numbers from 0 to 0.5")
    curve = _curve(name)
    found = [round(float(curve.voltage(p)), 6) if p else _nominal(curve, rates, 0, machines) for p in given]
    return {key: part for key, part in value.items() if key != rates} | {voltages: found}


def _curve(name: object) -> FailureCurve:
    if not isinstance(name, str):
        raise InputError("study", "sram.curve", name, "the name of a failure curve")
    try:
        return curve_of(name)
    except InputError as error:
        raise InputError("study", "sram.curve", name, error.allowed) from None


def nominal_of(name: object, machines: object) -> float:
    """The nominal supply of the accelerators' weights in the unit of a curve; InputError where they have none alike."""
    return _nominal(_curve(name), "voltages", None, machines)


def _nominal(curve: FailureCurve, key: str, value: object, machines: object) -> float:
    """The nominal supply of the accelerators; InputError where a curve in volts meets rails of several."""
    if curve.unit != "V":
        return curve.nominal
    names = [name for name in machines if isinstance(name, str)] if isinstance(machines, list) else []
    found = {nominal_on(accelerator(name), curve) for name in names or DEFAULT_ACCELERATORS}
    if len(found) > 1:
        allowed = (
            f"more than 0, as rails of {', '.join(f'{v:g} V' for v in sorted(found))} have no nominal supply alike"
        )
        raise InputError("study", key, value, allowed)
    return found.pop()


def _trained_at_rates(protection: object, curve: object, machines: object) -> object:
    fuse = protection.get("neuralfuse") if isinstance(protection, dict) else None
    if not isinstance(protection, dict) or not isinstance(fuse, dict):
        return protection
    return {
        **protection,
        "neuralfuse": _with_voltages(fuse, "train_cell_fault_rates", "train_voltages", curve, machines),
    }
