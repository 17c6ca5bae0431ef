"""The 6T cell as currents: margins of the four ways in which it fails, critical voltages, weighted failures.

Transistors are numbered 0, 1 pull-down left and right, 2, 3 access, 4, 5 pull-up. `threshold` float64[7] are their
thresholds (magnitudes) and, last, the offset of the sense amplifier that reads the cell; `cell` is what all share.
State 0 stores 0 on the left, state 1 on the right: in state s the low node is s and the high node 1 - s.

A margin is the logarithm of a ratio (of currents, or of the bit line's swing over the offset): smooth, growing with the
supply, negative where the cell fails.
"""

from typing import NamedTuple

import numba
import numpy as np

from sram.jit import jit, jit_parallel

ACCESS, WRITE, READ, HOLD = 0, 1, 2, 3
MECHANISMS = 4
OFFSET = 6  # of the sense amplifier, among the deviations
DEVIATIONS = 7
SMALL_SWING = 1e-3  # V: a logarithm above, straight below, where an offset may change its sign
GOLDEN = 0.6180339887498949
HUMPS = 8  # points of the grid on which the larger of two humps is found


class Transistors(NamedTuple):
    """Specific currents (A) of pull-down, access and pull-up, and what the array asks of the cell."""

    pull_down: float
    access: float
    pull_up: float
    slope_factor: float
    dibl: float
    thermal_v: float
    read_ohm: float  # V per ampere of read current: swing of the bit line when the sense amplifier decides
    write_conductance: float  # A per volt: moves the storage node in time
    bit_line_low: float  # V, negative or 0: bit line that writes a 0


@jit
def ekv(specific, gate, drain, source, threshold, cell):
    """Drain current of an nMOS, drain >= source, bulk at 0; for a pMOS all voltages count down from the supply."""
    pinch_off = (gate - threshold + cell.dibl * (drain - source)) / cell.slope_factor
    half = 0.5 / cell.thermal_v
    forward = (pinch_off - source) * half
    reverse = (pinch_off - drain) * half
    f = forward if forward > 30 else np.log1p(np.exp(forward))
    r = reverse if reverse > 30 else np.log1p(np.exp(reverse))
    return specific * (f - r) * (f + r)


@jit
def drive(node, gate_in, out, v, word_line, threshold, cell):
    """log(current up) - log(current down) at storage node `node`, held at `out`, its inverter driven by `gate_in`.

    Falls strictly in `out` and in `gate_in`. Bit line at v.
    """
    up = ekv(cell.pull_up, v - gate_in, v - out, 0.0, threshold[4 + node], cell)
    up += ekv(cell.access, word_line, v, out, threshold[2 + node], cell)
    down = ekv(cell.pull_down, gate_in, out, 0.0, threshold[node], cell)
    return np.log(up + 1e-300) - np.log(down + 1e-300)


@jit
def inverter(node, gate_in, v, word_line, threshold, cell):
    """Voltage at which node `node` settles when its inverter is driven by `gate_in`; gate_in < 0: the trip point, where
    input and output are equal."""
    a, b = 0.0, v
    f_a, f_b = 60.0, -60.0
    x, f = 0.5 * v, 0.0
    for step in range(60):
        f = drive(node, x if gate_in < 0 else gate_in, x, v, word_line, threshold, cell)
        old, f_old = x, f
        if f > 0:
            old, f_old, a, f_a = a, f_a, x, f
        else:
            old, f_old, b, f_b = b, f_b, x, f
        if b - a < 1e-12 or abs(f) < 1e-7:
            break
        # Inverse quadratic interpolation where it is safe, else bisection (Chandrupatla, Adv. Eng. Softw. 28, 1997).
        t = 0.5
        if step > 1:
            other, f_other = (b, f_b) if f > 0 else (a, f_a)
            xi, phi = (x - other) / (old - other), (f - f_other) / (f_old - f_other)
            if phi * phi < xi and (1 - phi) * (1 - phi) < 1 - xi:
                t = f / (f_other - f) * (f_old / (f_other - f_old)) + (old - x) / (other - x) * (
                    f / (f_old - f) * (f_other / (f_old - f_other))
                )
            t = min(max(t, 1e-3), 1 - 1e-3)
            x += t * (other - x)
        else:
            x = 0.5 * (a + b)
    return x


@jit
def follow(node, forced, v, word_line, threshold, cell):
    """log(pull down / pull up) at `node` held at `forced`, while the other node settles to what that makes of it."""
    other = inverter(1 - node, forced, v, word_line, threshold, cell)
    return -drive(node, other, forced, v, word_line, threshold, cell)


@jit
def lobe(state, v, word_line, sign_only, threshold, cell):
    """Static stability of the stored state: the largest `follow` of the low node between 0 and the other inverter's
    trip point. Positive iff the butterfly curve has this lobe, that is iff Seevinck's square is positive.

    Word line at v while reading, at 0 while holding. sign_only: stop at the first positive value. A lopsided cell has
    two humps: the higher one is looked for on a coarse grid first.
    """
    end = inverter(1 - state, -1.0, v, word_line, threshold, cell)
    step = end / HUMPS
    best, highest = 0.5 * step, -np.inf
    for i in range(HUMPS):
        x = (i + 0.5) * step
        f = follow(state, x, v, word_line, threshold, cell)
        if f > highest:
            best, highest = x, f
            if sign_only and f > 0:
                return f
    a, b = max(best - step, 0.0), min(best + step, end)
    x1, x2 = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    f1 = follow(state, x1, v, word_line, threshold, cell)
    f2 = follow(state, x2, v, word_line, threshold, cell)
    for _ in range(8):
        if sign_only and max(f1, f2) > 0:
            break
        if f1 > f2:
            b, x2, f2 = x2, x1, f1
            x1 = b - GOLDEN * (b - a)
            f1 = follow(state, x1, v, word_line, threshold, cell)
        else:
            a, x1, f1 = x1, x2, f2
            x2 = a + GOLDEN * (b - a)
            f2 = follow(state, x2, v, word_line, threshold, cell)
    return max(f1, f2, highest)


@jit
def access_margin(state, v, threshold, cell):
    """asinh(swing) - asinh(offset against this state), in units of `SMALL_SWING`.

    The sense amplifier decides rightly iff the bit line's swing exceeds its offset, which hinders one state as much as
    it helps the other.

    Read current: access transistor and pull-down in series, the other node at v (Mukhopadhyay, Mahmoodi, Roy, TCAD
    2005, sec. III).
    """
    low, high = 0.0, v
    f_low, f_high = 60.0, -60.0
    x = 0.25 * v
    for step in range(60):
        through_access = ekv(cell.access, v, v, x, threshold[2 + state], cell)
        through_down = ekv(cell.pull_down, v, x, 0.0, threshold[state], cell)
        f = np.log(through_access + 1e-300) - np.log(through_down + 1e-300)
        if abs(f) < 1e-7 or high - low < 1e-12:
            break
        if f > 0:
            low, f_low = x, f
        else:
            high, f_high = x, f
        if step % 3 == 0:  # a bisection among secants: neither end can get stuck
            x = 0.5 * (low + high)
        else:
            x = low + (high - low) * min(max(f_low / (f_low - f_high), 1e-2), 1 - 1e-2)
    swing = np.sqrt(through_access * through_down) * cell.read_ohm
    against = threshold[OFFSET] if state == 0 else -threshold[OFFSET]
    return np.arcsinh(swing / SMALL_SWING) - np.arcsinh(against / SMALL_SWING)


@jit
def discharge(node, forced, v, threshold, cell):
    """log(currents down / (current up + current that moves the node in time)) at the high `node` held at `forced` while
    its bit line is low and the other node settles."""
    other = inverter(1 - node, forced, v, v, threshold, cell)
    down = ekv(cell.access, v, forced, cell.bit_line_low, threshold[2 + node], cell)
    down += ekv(cell.pull_down, other, forced, 0.0, threshold[node], cell)
    up = ekv(cell.pull_up, v - other, v - forced, 0.0, threshold[4 + node], cell)
    return np.log(down + 1e-300) - np.log(up + cell.write_conductance * v + 1e-300)


@jit
def write_margin(state, v, sign_only, threshold, cell):
    """Least `discharge` of the high node on its way from v to the other inverter's trip point, beyond which the cell
    turns over by itself. sign_only: stop at the first negative value."""
    a, b = inverter(state, -1.0, v, v, threshold, cell), v
    if sign_only:  # the weakest access and the strongest pull-up anywhere on the way: enough if even they succeed
        down = ekv(cell.access, v, a, cell.bit_line_low, threshold[3 - state], cell)
        up = ekv(cell.pull_up, v, v - a, 0.0, threshold[5 - state], cell) + cell.write_conductance * v
        if down > up:
            return np.log(down / up)
    x1, x2 = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    f1 = discharge(1 - state, x1, v, threshold, cell)
    f2 = discharge(1 - state, x2, v, threshold, cell)
    for _ in range(10):
        if sign_only and min(f1, f2) < 0:
            break
        if f1 < f2:
            b, x2, f2 = x2, x1, f1
            x1 = b - GOLDEN * (b - a)
            f1 = discharge(1 - state, x1, v, threshold, cell)
        else:
            a, x1, f1 = x1, x2, f2
            x2 = a + GOLDEN * (b - a)
            f2 = discharge(1 - state, x2, v, threshold, cell)
    return min(f1, f2)


@jit
def margin(mechanism, state, v, sign_only, threshold, cell):
    """The margin of a mechanism in a state at v; with `sign_only` any number of its sign, found sooner."""
    if mechanism == ACCESS:
        return access_margin(state, v, threshold, cell)
    if mechanism == WRITE:
        return write_margin(state, v, sign_only, threshold, cell)
    return lobe(state, v, v if mechanism == READ else 0.0, sign_only, threshold, cell)


@jit
def fails(v, wanted, threshold, cell):
    """Whether a cell fails at v by any of the `wanted` mechanisms (bool[4]) in either state."""
    for mechanism in range(MECHANISMS):
        if wanted[mechanism]:
            for state in range(2):
                if margin(mechanism, state, v, True, threshold, cell) < 0:
                    return True
    return False


@jit
def critical_voltage(low, high, wanted, threshold, cell):
    """(voltage below which the cell fails, mechanism that sets it), between low and high: the worst of all.

    A mechanism is solved for only if it fails where the worst so far just works.
    """
    best, cause = low, -1
    for mechanism in range(MECHANISMS):
        if not wanted[mechanism]:
            continue
        for state in range(2):
            if margin(mechanism, state, best, True, threshold, cell) >= 0:
                continue
            a, b = best, high
            f_low = margin(mechanism, state, a, False, threshold, cell)
            f_high = margin(mechanism, state, b, False, threshold, cell)
            if f_high < 0:
                return high, mechanism
            side = 0
            for _ in range(60):  # regula falsi, Illinois variant
                x = (a * f_high - b * f_low) / (f_high - f_low)
                f = margin(mechanism, state, x, False, threshold, cell)
                if f < 0:
                    a, f_low = x, f
                    if side == -1:
                        f_high *= 0.5
                    side = -1
                else:
                    b, f_high = x, f
                    if side == 1:
                        f_low *= 0.5
                    side = 1
                if b - a < 1e-7 or abs(f) < 1e-7:
                    break
            best, cause = x, mechanism
    return best, cause


@jit_parallel
def critical_voltages(normal, mean, sigma, low, high, wanted, cell, voltage, cause):
    """For cells of standard normal threshold deviations normal float64[n, 7]: voltage float64[n], cause int8[n]."""
    for i in numba.prange(normal.shape[0]):
        voltage[i], cause[i] = critical_voltage(low, high, wanted, mean + sigma * normal[i], cell)


@jit_parallel
def failures(normal, mean, sigma, v, wanted, cell, failed):
    """failed bool[n]: which of the cells normal float64[n, 7] fail at v."""
    for i in numba.prange(normal.shape[0]):
        failed[i] = fails(v, wanted, mean + sigma * normal[i], cell)


@jit
def along_pairs(mechanism, state, v, mean, sigma, cell, farthest, point):
    """Nearest failure, to 0.05, in the directions in which one transistor or two equally deviate, as point float64[7];
    False where there is none up to `farthest`.

    A cell fails by one inverter or by the other, and where the supply is high the slope at the mean cell points at the
    one that is further off: the search for the most probable failure must not start there.
    """
    nearest = farthest
    direction = np.empty(DEVIATIONS)
    for i in range(DEVIATIONS):
        for j in range(i + 1):
            for sign_i in (-1.0, 1.0):
                for sign_j in (-1.0, 1.0):
                    direction[:] = 0.0
                    direction[i] += sign_i
                    direction[j] += sign_j
                    norm = np.sqrt(np.dot(direction, direction))
                    if norm == 0.0:  # i is j, up and down
                        continue
                    direction /= norm
                    if margin(mechanism, state, v, True, mean + sigma * direction * nearest, cell) >= 0:
                        continue
                    low, high = 0.0, nearest
                    while high - low > 0.05:
                        middle = 0.5 * (low + high)
                        if margin(mechanism, state, v, True, mean + sigma * direction * middle, cell) < 0:
                            high = middle
                        else:
                            low = middle
                    nearest = high
                    point[:] = direction * nearest
    return nearest < farthest


@jit
def closest_failure(mechanism, state, v, mean, sigma, cell, farthest, point):
    """Most probable failure point of one mechanism, as point float64[7] in standard deviations: of those with margin 0
    the nearest to the origin, by the iteration of Rackwitz and Fiessler (1978) with bounded steps from the nearest one
    `along_pairs`. Returns its distance; `farthest` where there is none nearer, 0 where the mean cell fails already."""
    step = 0.02
    gradient = np.empty(DEVIATIONS)
    point[:] = 0.0
    if margin(mechanism, state, v, True, mean, cell) < 0:
        return 0.0
    # A flat surface at `farthest` is met by some pair within sqrt(3) times that, whatever its direction.
    if not along_pairs(mechanism, state, v, mean, sigma, cell, 1.8 * farthest, point):
        return farthest
    value = margin(mechanism, state, v, False, mean + sigma * point, cell)
    for iteration in range(40):
        for j in range(DEVIATIONS):
            keep = point[j]
            point[j] = keep + step
            up = margin(mechanism, state, v, False, mean + sigma * point, cell)
            point[j] = keep - step
            down = margin(mechanism, state, v, False, mean + sigma * point, cell)
            point[j] = keep
            gradient[j] = (up - down) / (2 * step)
        norm2 = np.dot(gradient, gradient)
        if norm2 < 1e-20:
            break
        move = (np.dot(gradient, point) - value) / norm2 * gradient - point
        length = np.sqrt(np.dot(move, move))
        longest = 0.5 if iteration < 20 else 0.1
        if length > longest:  # shorter in the end, so that it cannot go round in circles where the surface is curved
            move *= longest / length
        point += move
        value = margin(mechanism, state, v, False, mean + sigma * point, cell)
        if length < 0.02 and abs(value) < 0.01:
            break
    # Onto the surface along the ray, converged or not: any point on it is a sound centre, the nearest the best one.
    point /= np.sqrt(np.dot(point, point))
    low, high = 0.0, farthest
    if margin(mechanism, state, v, True, mean + sigma * point * high, cell) >= 0:
        return farthest
    while high - low > 1e-4:
        middle = 0.5 * (low + high)
        if margin(mechanism, state, v, False, mean + sigma * point * middle, cell) < 0:
            high = middle
        else:
            low = middle
    point *= high
    return high


@jit
def transfer(node, grid, v, word_line, threshold, cell, out):
    """out float64[n]: where node `node` settles when the other node is forced to grid[i]."""
    for i in range(grid.shape[0]):
        out[i] = inverter(node, grid[i], v, word_line, threshold, cell)
