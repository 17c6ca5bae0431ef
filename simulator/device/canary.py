"""Canary words, which show whether a chip has moved away from its map since it was characterised.

Canaries are the cells whose critical voltages lie nearest to the supply in use, on both sides of it: the first to
change when temperature or age moves a chip.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.device.protocol import DeviceMemory
from sram.weakcells import FaultMap


@dataclass(frozen=True, eq=False)
class Drift:
    """What re-reading the canaries found. `shift` is the move of all critical voltages that explains most of it,
    above 0 for a chip that got worse, in the map's unit and no finer than the canaries lie apart. `healed` cells
    should have failed and did not, `fallen` ones the other way round, of `canaries`."""

    shift: float
    healed: int
    fallen: int
    canaries: int

    @property
    def changed(self) -> float:
        """Share of the canaries that do not behave as the map says."""
        return (self.healed + self.fallen) / max(1, self.canaries)


def canaries(fault_map: FaultMap, voltage: float, count: int = 64, span: float = 0.02) -> NDArray[np.int64]:
    """Indices into the map of at most `count` cells whose critical voltages are spread evenly over voltage +- span.

    A chip that moves by up to `span` is measured to about 2 * span / count. A supply at the map's floor has no canaries
    below it: characterise a little lower than you work. InputError below the floor.
    """
    fault_map.count(voltage)
    rising = fault_map.critical_voltage[::-1].astype(np.float64)
    wanted = np.linspace(voltage - span, voltage + span, count)
    right = np.clip(np.searchsorted(rising, wanted), 0, max(0, len(rising) - 1))
    left = np.maximum(right - 1, 0)
    if not len(rising):
        return np.empty(0, np.int64)
    nearest = np.where(wanted - rising[left] < rising[right] - wanted, left, right)
    inside = np.abs(rising[nearest] - voltage) <= span
    return np.unique(len(rising) - 1 - nearest[inside])


def drift(device: DeviceMemory, fault_map: FaultMap, voltage: float, chosen: NDArray[np.int64]) -> Drift:
    """Read the canaries `chosen` at `voltage` under zeros and ones. Costs six calls for every word and five more.

    What the words held is written back, and the supply goes back to nominal.
    """
    word, bit = fault_map.geometry.word_bit(fault_map.cell[chosen])
    ones = np.uint64((1 << device.info.word_bits) - 1)
    wrong: dict[int, int] = {}
    nominal = device.info.voltage_nominal
    addresses = [int(address) for address in np.unique(word)]
    device.set_voltage(nominal)
    kept = {address: device.read(address, 1) for address in addresses}
    for pattern in (np.uint64(0), ones):
        for address in addresses:
            device.write(address, [pattern])
        device.set_voltage(voltage)
        for address in addresses:
            wrong[address] = wrong.get(address, 0) | int(device.read(address, 1)[0] ^ pattern)
        device.set_voltage(nominal)
    for address in addresses:
        device.write(address, kept[address])
    fails = np.array([wrong[int(w)] >> int(b) & 1 for w, b in zip(word, bit, strict=True)], bool)
    return judge(fault_map, voltage, chosen, fails)


def judge(fault_map: FaultMap, voltage: float, chosen: NDArray[np.int64], fails: NDArray[np.bool_]) -> Drift:
    """What it means that of the canaries `chosen` these fail at `voltage`, bool[n]."""
    critical = fault_map.critical_voltage[chosen].astype(np.float64)
    expected = critical > voltage
    healed, fallen = int((expected & ~fails).sum()), int((~expected & fails).sum())
    return Drift(_shift(voltage - critical, fails), healed, fallen, len(chosen))


def _shift(distance: NDArray[np.float64], fails: NDArray[np.bool_]) -> float:
    """The shift s nearest 0 for which `fails` differs least from s > distance."""
    order = np.argsort(distance)
    d, f = distance[order], fails[order]
    # With the first i cells said to fail: those of them that do not, and those after them that do.
    wrong = np.concatenate([[0], np.cumsum(~f)]) + f.sum() - np.concatenate([[0], np.cumsum(f)])
    low, high = np.concatenate([[-np.inf], d]), np.concatenate([d, [np.inf]])
    best = wrong == wrong.min()
    nearest = np.clip(0.0, low[best], high[best])
    return float(nearest[np.abs(nearest).argmin()]) if len(d) else 0.0
