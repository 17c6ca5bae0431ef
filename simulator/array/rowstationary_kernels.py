"""Counts of one layer by a row stationary schedule, and the search for the cheapest one (semantics: rowstationary.py).

`shape`, `machine`, `price` and `out` are records of shapes.SHAPE, MACHINE, figures.PRICES and shapes.COUNTS; `window`
and `pads` of rowstationary.WINDOW and PADS. `strips`: a row for each height of a strip, columns ROWS to LARGEST.
"""

import numpy as np

from simulator.array.dataflow_kernels import RS
from simulator.array.tiling_kernels import CYCLES, EDP, cost_of
from sram.jit import jit

# Output rows of a strip, whole strips, output rows of a last one, last ones (0 or 1), input rows that the strips touch
# in sum, those that one takes room for.
ROWS, WHOLE, LAST, LASTS, TOUCHED, LARGEST = range(6)
FEW = 16  # axes of so many units are tried at every size


@jit
def sets_of(machine, window, rows):
    """Sets of filter rows x output rows that fit on the array; a set wider than the array is folded onto more rows."""
    if rows <= machine.cols:
        return machine.rows // window.kernel_h * (machine.cols // rows)
    return machine.rows // (window.kernel_h * -(-rows // machine.cols))


@jit
def fits_array(machine, window, pads, rows, p, q, r, t):
    """Whether sets and scratchpads suffice."""
    taps = p * q * window.kernel_w
    small = taps <= pads.weight_words and p <= pads.psum_words and q * window.span_w <= pads.ifmap_words
    return small and r * t <= sets_of(machine, window, rows)


@jit
def fits_buffers(machine, shape, window, pads, largest, rows, n, m, channels):
    """Whether partial sums and the inputs of so many channels fit."""
    sums = float(n) * m * rows * window.out_w * machine.psum_bytes
    inputs = float(n) * channels * largest * window.in_cols * machine.ifmap_bytes if shape.ifmap_dram > 0 else 0.0
    if pads.pool > 0:
        return sums + inputs <= pads.pool
    return sums <= machine.psum_room and inputs <= machine.ifmap_room


@jit
def fits_filters(machine, shape, window, p, q, r, t):
    """Whether the filters of a pass fit in their buffer."""
    words = float(min(p * t, shape.n)) * min(q * r, shape.channels) * window.kernel_h * window.kernel_w
    return shape.filter_dram == 0 or words * machine.filter_bytes <= machine.filter_room


@jit
def kinds(total, size):
    """((size of a whole part, whole parts), (size of the last part, last parts)) of an axis."""
    return ((size, total // size), (total % size, int(total % size > 0)))


@jit
def count(shape, machine, window, pads, strip, n, m, p, q, r, t, out):
    """Fill `out` for a schedule that fits."""
    products, filters, channels = shape.products, shape.n, shape.channels
    kernel_h, kernel_w, out_w = window.kernel_h, window.kernel_w, window.out_w
    strips = strip[WHOLE] + strip[LASTS]
    blocks, groups, slices = -(-window.samples // n), -(-filters // m), -(-channels // (q * r))
    one_pass = groups == 1 and slices == 1 and m <= p * t
    whole = float(channels) * filters * kernel_h * kernel_w  # filters of a product
    stays = one_pass or whole * machine.filter_bytes <= machine.filter_room
    ifmap_kept = slices == 1 or fits_buffers(machine, shape, window, pads, strip[LARGEST], strip[ROWS], n, m, channels)
    swept = float(window.in_rows if ifmap_kept else groups * strip[TOUCHED])
    ifmap = swept * window.in_cols * channels * window.samples * products * machine.ifmap_bytes * shape.ifmap_dram
    filter_bytes = machine.filter_bytes * shape.filter_dram
    fetched = whole * products * (1 if stays else blocks * strips) * filter_bytes
    outputs = float(shape.outputs) * machine.ofmap_bytes if shape.ofmap_dram else 0.0

    # inputs of one channel of one sample for a strip, where they are fetched
    load = swept / strips / (1 if ifmap_kept else groups) * window.in_cols * machine.ifmap_bytes * shape.ifmap_dram
    bandwidth, latency = machine.bandwidth, float(machine.latency)
    total, array, busy, passes, first = 0.0, 0.0, 0.0, 0, -1.0
    for nb, n_times in kinds(window.samples, n):
        for eb, e_times in ((strip[ROWS], strip[WHOLE]), (strip[LAST], strip[LASTS])):
            for again in range(2):  # the first block of samples and rows apart from the others
                at_first = again == 0
                times_ne = n_times * e_times
                if times_ne == 0:
                    continue
                if nb == min(n, window.samples) and eb == strip[ROWS]:
                    times_ne = 1 if at_first else times_ne - 1
                elif at_first:
                    continue
                if times_ne == 0:
                    continue
                for group in range(3):  # the first group of filters, further ones, a narrower last one
                    if group == 0:
                        mb, m_times = min(m, filters), 1
                    elif group == 1:
                        mb, m_times = m, filters // m - 1
                    else:
                        mb, m_times = filters % m, int(filters % m > 0 and filters > m)
                    if m_times <= 0:
                        continue
                    turns = -(-mb // (p * t))
                    for cb, c_times in kinds(channels, q * r):
                        if c_times == 0:
                            continue
                        moved = nb * cb * load if group == 0 or not ifmap_kept else 0.0
                        transfer = moved / bandwidth + (latency if moved > 0 else 0.0)
                        drained = float(nb) * eb * out_w * mb / slices
                        drained *= machine.ofmap_bytes / bandwidth if shape.ofmap_dram else 0.0
                        beside = (transfer + drained) / turns
                        q_used = -(-cb // r)
                        for mp, p_times in kinds(mb, p * t):
                            if p_times == 0:
                                continue
                            p_used = -(-mp // t)
                            words = float(mp) * cb * kernel_h * kernel_w
                            work = float(nb) * out_w * kernel_w * p_used * q_used
                            sums = float(nb) * eb * out_w * mp / pads.psum_port
                            runs = words / pads.weight_port if at_first or not one_pass else 0.0
                            runs += max(work, sums)
                            brought = words * filter_bytes if at_first or not stays else 0.0
                            fetch = brought / bandwidth + (latency if brought > 0 else 0.0)
                            number = times_ne * m_times * c_times * p_times
                            if pads.double:
                                total += number * max(runs, fetch + beside)
                            else:
                                total += number * (max(runs, fetch) + beside)
                            if first < 0:
                                first = fetch + (transfer if pads.double else 0.0)
                            array += number * runs
                            busy += number * work
                            passes += number
    total *= products
    array *= products
    total += first
    if pads.double:
        total += outputs / (float(products) * blocks * strips * groups) / bandwidth

    out.dataflow = RS
    out.macs = products * shape.m * shape.k * shape.n
    out.vector_operations = 0
    out.folds = products * passes
    out.array_cycles = np.ceil(array * (1 - 1e-12))
    out.cycles = max(out.array_cycles, int(np.ceil(total * (1 - 1e-12))))
    out.stall_cycles = out.cycles - out.array_cycles
    out.utilization = out.macs / (out.cycles * machine.rows * machine.cols)
    out.mapping_efficiency = out.macs / (busy * products * machine.rows * machine.cols)
    sweeps = filters // m * -(-m // (p * t)) + -(-(filters % m) // (p * t))
    out.ifmap_sram_reads = products * channels * window.samples * strip[TOUCHED] * window.in_cols * sweeps
    out.ifmap_sram_writes = np.ceil(ifmap / machine.ifmap_bytes)
    loads = products * (1 if one_pass else blocks * strips)
    out.filter_sram_reads = loads * whole
    out.filter_sram_writes = np.ceil(fetched / machine.filter_bytes)
    out.psum_sram_writes = (slices - 1) * products * shape.m * shape.n
    out.psum_sram_reads = out.psum_sram_writes
    out.ofmap_sram_writes = shape.outputs * shape.stored
    out.ofmap_sram_reads = shape.outputs * shape.stored
    out.ifmap_dram_read_bytes = np.ceil(ifmap)
    out.filter_dram_read_bytes = np.ceil(fetched)
    out.psum_dram_read_bytes = 0
    out.psum_dram_write_bytes = 0
    out.ofmap_dram_write_bytes = np.ceil(outputs)

    # words written to scratchpads, and partial sums handed from element to element
    sets = 0
    for mb, m_times in kinds(filters, m):
        if m_times > 0:
            for mp, p_times in kinds(mb, p * t):
                sets += m_times * p_times * -(-mp // max(1, -(-mp // t)))
    out.ifmap_scratchpad_writes = products * channels * window.samples * window.in_cols * window.valid_rows * sets
    columns = strip[ROWS] if one_pass else blocks * window.out_h
    out.filter_scratchpad_writes = products * whole * columns
    used = 0
    for cb, c_times in kinds(channels, q * r):
        used += c_times * -(-cb // max(1, -(-cb // r)))
    out.psum_hops = products * shape.m * shape.n * window.kernel_h * used


@jit
def smaller(count, size):
    """The next smaller size to try of an axis of `count`; 0 after 1."""
    if size <= 1 or count <= FEW:
        return size - 1
    return -(-count // -(-count // (size - 1)))


@jit
def largest(count, most):
    """The largest size to try that is at most `most`; 0 if there is none."""
    if most >= count:
        return count
    return most if count <= FEW or most < 1 else -(-count // -(-count // most))


@jit
def least_cost(shape, machine, window, pads, strip, p, q, r, t, price, objective):
    """A lower bound of what any schedule with these sets costs: no element waits, inputs are fetched once."""
    strips = strip[WHOLE] + strip[LASTS]
    slices = -(-shape.channels // (q * r))
    q_sum = shape.channels // (q * r) * q + -(-(shape.channels % (q * r)) // r)
    cycles = float(shape.products) * window.samples * strips * window.out_w * window.kernel_w * q_sum * shape.n / t
    results = float(shape.products) * shape.m * shape.n
    cycles = max(cycles, results * slices / pads.psum_port)
    whole = float(shape.products) * shape.channels * shape.n * window.kernel_h * window.kernel_w
    ifmap = float(window.in_rows) * window.in_cols * shape.channels * window.samples * shape.products
    outputs = shape.outputs * machine.ofmap_bytes if shape.ofmap_dram else 0.0
    loads = whole if slices == 1 and shape.n <= p * t else whole * strips
    kept = loads == whole or whole / shape.products * machine.filter_bytes <= machine.filter_room
    moved = ifmap * machine.ifmap_bytes * shape.ifmap_dram + outputs
    moved += (whole if kept else loads) * machine.filter_bytes * shape.filter_dram
    cycles = max(cycles, (moved - outputs) / machine.bandwidth) * (1 - 1e-9)
    if objective == CYCLES:
        return cycles
    pj = float(shape.products) * shape.m * shape.k * shape.n * price.mac_rs + cycles * price.cycle
    pj += (slices - 1) * results * (price.psum_read + price.psum_write)
    pj += shape.outputs * shape.stored * (price.ofmap_read + price.ofmap_write)
    pj += moved * price.dram_byte + loads * price.filter_read + ifmap * -(-shape.n // (p * t)) * price.ifmap_read
    pj *= 1 - 1e-9
    return pj * cycles if objective == EDP else pj


@jit
def chosen_of(choice, n, m, e, p, q, r, t):
    """Write a schedule into a record of rowstationary.CHOICE."""
    choice.n, choice.m, choice.e, choice.p, choice.q, choice.r, choice.t = n, m, e, p, q, r, t


@jit
def search_layer(shape, machine, window, pads, strips, price, objective, out, trial, choice):
    """The cheapest schedule of a layer into out[0] and choice[0]; False if none fits. trial: a record as scratch."""
    best, least_moved, found = np.inf, np.inf, False
    results = shape.products * shape.m * shape.n
    for s in range(strips.shape[0]):
        strip = strips[s]
        sets = sets_of(machine, window, strip[ROWS])
        q = largest(shape.channels, min(pads.ifmap_words // window.span_w, pads.weight_words // window.kernel_w))
        while q > 0:
            slices = -(-shape.channels // q)
            r = largest(slices, sets)
            while r > 0:
                p = largest(shape.n, min(pads.psum_words, pads.weight_words // (q * window.kernel_w)))
                while p > 0:
                    t = largest(-(-shape.n // p), sets // r)
                    while t > 0:
                        if fits_filters(machine, shape, window, p, q, r, t) and (
                            least_cost(shape, machine, window, pads, strip, p, q, r, t, price, objective) <= best
                        ):
                            turns = -(-shape.n // (p * t))
                            u = turns
                            while u > 0:
                                m = min(shape.n, u * p * t)
                                n = window.samples
                                while n > 0:
                                    if fits_buffers(
                                        machine, shape, window, pads, strip[LARGEST], strip[ROWS], n, m,
                                        min(q * r, shape.channels),
                                    ):  # fmt: skip
                                        count(shape, machine, window, pads, strip, n, m, p, q, r, t, trial[0])
                                        cost = cost_of(trial[0], price, objective, results)
                                        moved = float(trial[0].ifmap_dram_read_bytes + trial[0].filter_dram_read_bytes)
                                        if cost < best or (cost == best and moved < least_moved):
                                            best, least_moved, found = cost, moved, True
                                            out[0] = trial[0]
                                            chosen_of(choice[0], n, m, strip[ROWS], p, q, r, t)
                                    n = smaller(window.samples, n)
                                u = smaller(turns, u)
                        t = smaller(-(-shape.n // p), t)
                    p = smaller(shape.n, p)
                r = smaller(slices, r)
            q = smaller(shape.channels, q)
    return found
