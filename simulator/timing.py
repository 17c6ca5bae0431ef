"""The clock that an accelerator's supplies allow: how long each path takes, and the fastest that all of them meet.

At nominal supplies every path fits into the accelerator's own clock with the margin that `Accelerator.delay` states. A
path whose delay there is not known takes all that the margin leaves: so does the array's critical path, and an SRAM
access that is longer than the period is taken for pipelined, its longest stage for the whole of it. An SRAM access that
is shorter has the rest as slack.
"""

from collections.abc import Callable

from simulator.accelerator import Accelerator, Buffer, macro_of
from simulator.delay import AlphaPower, mac_path, published
from simulator.operating_point import OperatingPoint
from sram.energy import cycle_ns, delay_scale
from sram.errors import InputError


def path_shares(machine: Accelerator, at: OperatingPoint) -> dict[str, float]:
    """{path: its delay with margin at these supplies, as a share of the accelerator's own period}.

    Paths are `logic` and the buffers' names. InputError for a supply at or below the threshold of a path.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.operating_point import Supply
    >>> low = OperatingPoint((Supply("sram", 0.8), Supply("logic", 0.9)))
    >>> {path: round(share, 3) for path, share in path_shares(accelerator("paper"), low).items()}
    {'logic': 1.445, 'ifmap_buffer': 1.611, 'weight_buffer': 1.611, 'ofmap_buffer': 1.611}
    """
    volts, nominal = at.volts(machine), machine.rails["logic"]
    logic = machine.delay.logic or mac_path(nominal, machine.delay.corner)
    shares = {"logic": _share(machine, logic.nominal_ns) * logic.relative(volts["logic"], nominal)}
    for name, buffer in machine.memories.items():
        access_ns, relative = _access(machine, buffer)
        shares[name] = _share(machine, access_ns) * relative(volts[buffer.rail])
    return shares


def _share(machine: Accelerator, nominal_ns: float | None) -> float:
    """Of the period, at nominal supply: a path with its margin, at most all of it."""
    if nominal_ns is None:
        return 1.0
    return min(1.0, nominal_ns * (1 + machine.delay.margin) * machine.clock_hz / 1e9)


def _access(machine: Accelerator, buffer: Buffer) -> tuple[float | None, Callable[[float], float]]:
    """The delay of an access at nominal supply in ns, and how it goes with the supply in volts."""
    nominal, own = machine.rails[buffer.rail], machine.delay.sram
    if isinstance(own, AlphaPower):
        return own.nominal_ns, lambda volts: own.relative(volts, nominal)
    part = macro_of(machine, buffer)
    return float(cycle_ns(part, nominal)), lambda volts: float(
        delay_scale(volts, nominal, part.threshold_v, temperature_k=part.temperature_k)
    )


def fastest_clock_hz(machine: Accelerator, at: OperatingPoint) -> float:
    """The fastest clock at which every path keeps its margin; never above the accelerator's own.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.operating_point import NOMINAL, Supply
    >>> machine = accelerator("paper")
    >>> fastest_clock_hz(machine, NOMINAL) == machine.clock_hz
    True
    >>> round(fastest_clock_hz(machine, OperatingPoint((Supply("logic", 0.9),))) / 1e6)
    346
    """
    return machine.clock_hz / max(1.0, *path_shares(machine, at).values())


def beyond_data(machine: Accelerator, at: OperatingPoint) -> bool:
    """Whether the logic's supply lies below the data that its delay comes from, which no file of the user's gave."""
    fit = published(machine.delay.corner)
    return machine.delay.logic is None and at.supply("logic").share < fit.volts_low / fit.nominal_v


def clock_hz(machine: Accelerator, at: OperatingPoint) -> float:
    """The clock at an operating point. InputError for one in Hz that some path cannot meet even without its margin, but
    for the logic where sums may be late."""
    if at.clock_hz is None:
        return machine.clock_hz
    if at.clock_hz == "follow":
        return fastest_clock_hz(machine, at)
    shares = path_shares(machine, at)
    if at.late_sums:
        del shares["logic"]
    slowest = max(shares, key=lambda path: shares[path])
    most = machine.clock_hz * (1 + machine.delay.margin) / shares[slowest]
    if at.clock_hz > most:
        kept = most / (1 + machine.delay.margin)
        allowed = f"at most {most:.6g} ({slowest} of {machine.name}), {kept:.6g} with its margin; or follow"
        raise InputError("operating point", "clock_hz", at.clock_hz, allowed)
    return at.clock_hz


def slack(machine: Accelerator, at: OperatingPoint) -> float:
    """The clock's period over the delay of the array's critical path, without margin; below 1 sums come too late.

    Of the clock as it is asked for, whatever the paths allow: what a supply and a clock do to the logic is then in
    `simulator.mac_errors`.

    >>> from simulator.accelerator import accelerator
    >>> from simulator.operating_point import NOMINAL, Supply
    >>> machine, low = accelerator("paper"), OperatingPoint((Supply("logic", 0.85),))
    >>> round(slack(machine, NOMINAL), 3), round(slack(machine, low), 3)
    (1.1, 0.601)
    """
    clock = machine.clock_hz if at.clock_hz is None else at.clock_hz
    clock = fastest_clock_hz(machine, at) if clock == "follow" else clock
    return machine.clock_hz / clock * (1 + machine.delay.margin) / path_shares(machine, at)["logic"]
