"""Counts of one layer under a tiled schedule, and the search for the cheapest one (semantics: schedule.py).

`shape`, `machine`, `price` and `out` are records of cycles.SHAPE, MACHINE, COUNTS and figures.PRICES. Loops, outermost
first: products, blocks of samples, and tiles of m, k and n in one of ORDERS.
"""

import numpy as np

from simulator.array.cycles_kernels import MOST_CHUNKS, chunk_cycles, count_array_layer, count_vector_layer, traffic
from simulator.array.dataflow_kernels import IS, OS, RS, WS, gemm_cycles, spatial
from sram.jit import jit

M, K, N = 0, 1, 2
ORDERS = np.array([(M, K, N), (M, N, K), (K, M, N), (K, N, M), (N, M, K), (N, K, M)])
PLACES = np.argsort(ORDERS, axis=1) + 2  # of the loops over m, k and n, behind products and blocks
UNTILED = len(ORDERS)  # beside the orders
# Columns of the tables of candidates. Tiles of m: which block, pixels of a whole tile, whole tiles, pixels of a last
# tile, last tiles, input pixels that the tiles touch in sum, the most that one touches.
BLOCK, M_TILE, M_WHOLE, M_LAST, M_LASTS, TOUCHED, LARGEST = range(7)
# Tiles of k and n: size of a whole tile, whole tiles, size of the last, 0 or 1; for k the channels that tiles touch in
# sum, the most that one touches.
TILE, WHOLE, LAST, LASTS, VISITS, VISITED = range(6)
ENERGY, CYCLES, EDP = 0, 1, 2
SAMPLE = 7
ALL_SPLITS = -1


@jit
def run_tiles(shape, machine, dataflow, m, k, n, out):
    """Fill in what does not depend on the order of tiles."""
    rows, cols = machine.rows, machine.cols
    overlap, skip = machine.overlap, machine.skip_idle
    cycles, folds, filled, across, down = 0, 0, 0, 0, 0
    for mt, m_times in ((m[M_TILE], m[M_WHOLE]), (m[M_LAST], m[M_LASTS])):
        for kt, k_times in ((k[TILE], k[WHOLE]), (k[LAST], k[LASTS])):
            for nt, n_times in ((n[TILE], n[WHOLE]), (n[LAST], n[LASTS])):
                times = m_times * k_times * n_times
                if times == 0:
                    continue
                sr, sc, _ = spatial(dataflow, mt, kt, nt)
                fr, fc = -(-sr // rows), -(-sc // cols)
                cycles += times * gemm_cycles(dataflow, 1, mt, kt, nt, rows, cols, overlap, skip)
                folds += times * fr * fc
                filled += times * sr * sc
                # elements that enter: of each tile's streamed or stationary operands
                if dataflow == OS:
                    across += times * fr * kt * nt  # filters
                    down += times * mt * nt  # results
                elif dataflow == WS:
                    across += times * kt * nt
                    down += times * fr * mt * nt
                else:
                    across += times * fc * kt * nt
                    down += times * fr * mt * nt
    g = shape.products
    out.dataflow = dataflow
    out.macs = g * shape.m * shape.k * shape.n
    out.vector_operations = 0
    out.folds = g * folds
    out.array_cycles = g * cycles
    out.mapping_efficiency = filled / (folds * rows * cols)
    column = -(-n[TILE] // cols) * (n[WHOLE]) + (-(-n[LAST] // cols) if n[LASTS] else 0)
    out.ifmap_sram_reads = g * shape.valid * (n[WHOLE] + n[LASTS] if dataflow == IS else column)
    out.filter_sram_reads = g * across
    out.psum_sram_writes = max(0, g * down - shape.outputs)
    out.psum_sram_reads = out.psum_sram_writes
    out.ofmap_sram_writes = shape.outputs * shape.stored
    out.ofmap_sram_reads = shape.outputs * shape.stored


@jit
def psums_alive(machine, dataflow, m, k, n):
    """Bytes of partial sums that wait for the next taps while one tile runs, or for the next tile of taps."""
    mt, nt = m[M_TILE], n[TILE]
    if k[WHOLE] + k[LASTS] > 1:
        return mt * nt * machine.psum_bytes
    if dataflow == OS or k[TILE] <= machine.rows:
        return 0.0
    return (mt * min(nt, machine.cols) if dataflow == WS else nt * min(mt, machine.cols)) * machine.psum_bytes


@jit
def move_tiles(shape, machine, blocks, m, k, n, order, out):
    """(cycles, ifmap bytes, filter bytes, spilled bytes) of `blocks` blocks of tiles that fit, in one order, a number;
    `out` is one block's from run_tiles."""
    tm, tk, tn = m[M_WHOLE] + m[M_LASTS], k[WHOLE] + k[LASTS], n[WHOLE] + n[LASTS]
    at_m, at_k, at_n = PLACES[order]
    # inputs: kept over the filters' loop, and their halo over the loop of pixels, if what lies inside fits
    pixels = shape.unique / shape.channels
    ifmap, ifmap_kept, last_ifmap, again = 0.0, True, 0, 1
    if shape.ifmap_dram > 0:
        last_ifmap = max(1 if blocks > 1 else 0, at_m if tm > 1 else 0, at_k if tk > 1 else 0)
        inside = (pixels if at_m > at_n else m[LARGEST]) * (shape.channels if at_k > at_n else k[VISITED])
        ifmap_kept = inside * machine.ifmap_bytes <= machine.ifmap_room
        all_taps = tm == 1 or at_m < at_k
        all_taps = all_taps and m[LARGEST] * shape.channels * machine.ifmap_bytes <= machine.ifmap_room
        halo = tk == 1 or at_k < at_m or all_taps or (ifmap_kept and at_n < at_m)
        wide = shape.channels if all_taps or (ifmap_kept and at_n < at_k) else k[VISITS]
        ifmap = (pixels if halo else m[TOUCHED]) * wide * machine.ifmap_bytes * shape.ifmap_dram
        again = tn if not ifmap_kept and at_n < last_ifmap else 1
        ifmap *= again
        ifmap *= shape.products * blocks
    # filters: kept over the loop of pixels, and over blocks
    filters, kept_m, kept_b, last_filter, again_m, again_b = 0.0, True, True, 0, 1, 1
    if shape.filter_dram > 0:
        last_filter = max(at_k if tk > 1 else 0, at_n if tn > 1 else 0)
        whole = shape.k * shape.n * machine.filter_bytes
        inside = (shape.k if at_k > at_m else k[TILE]) * (shape.n if at_n > at_m else n[TILE])
        kept_m = inside * machine.filter_bytes <= machine.filter_room
        kept_b = whole <= machine.filter_room or last_filter == 0
        again_m = tm if at_m < last_filter and not kept_m else 1
        again_b = blocks if last_filter > 1 and not kept_b else 1
        filters = whole * shape.products * shape.filter_dram * again_m * again_b
    # partial sums: what waits for the next tile of taps, and finds no room, goes to DRAM and comes back
    spill = 0.0
    if tk > 1:
        alive = float(shape.m if at_m > at_k else m[M_TILE]) * (shape.n if at_n > at_k else n[TILE])
        alive *= machine.psum_bytes
        lost = max(0.0, alive - machine.psum_room) / alive
        spill = (tk - 1) * shape.m * shape.n * machine.psum_bytes * lost * shape.products * blocks
    outputs = shape.outputs * machine.ofmap_bytes * blocks if shape.ofmap_dram else 0.0

    bandwidth, latency = machine.bandwidth, float(machine.latency)
    turns = (tm, tk, tn)
    first, second, third = ORDERS[order]
    times = (shape.products, blocks, turns[first], turns[second], turns[third])
    steps = float(shape.products) * blocks * tm * tk * tn
    compute = float(out.array_cycles) * blocks / steps
    # Loads of each operand: how many, and on which share of the advances of each loop one happens.
    each_i = ifmap / (float(shape.products) * blocks * tm * tk * again)
    each_f = filters / (float(shape.products) * tk * tn * again_m * again_b)
    write = (outputs + 2 * spill) / steps / bandwidth
    total, advances = 0.0, 1.0
    for j in range(5):
        here = advances * (times[j] - 1)
        advances *= times[j]
        if here == 0:
            continue
        share_i = 1.0 if j <= last_ifmap else 0.0
        if ifmap_kept and tn > 1 and share_i > 0 and j >= at_n:
            share_i = 0.0 if j == at_n else 1.0 / tn
        share_f = 1.0 if j <= last_filter else 0.0
        if kept_m and tm > 1 and share_f > 0 and j >= at_m:
            share_f = 0.0 if j == at_m else 1.0 / tm
        if kept_b and blocks > 1 and share_f > 0 and j >= 1:
            share_f *= 0.0 if j == 1 else 1.0 / blocks
        for with_i in range(2):
            for with_f in range(2):
                share = (share_i if with_i else 1 - share_i) * (share_f if with_f else 1 - share_f)
                if share <= 0:
                    continue
                moved = with_i * each_i + with_f * each_f
                transfer = write + (moved / bandwidth + latency if moved > 0 else 0.0)
                total += here * share * (max(compute, transfer) if machine.depth > 1 else compute + transfer)
    head = (each_i + each_f) / bandwidth + latency if each_i + each_f > 0 else 0.0
    total += head + (max(compute, write) if machine.depth > 1 else compute + write)
    total += outputs / (float(shape.products) * blocks * tm * tn) / bandwidth
    return total, ifmap, filters, spill


@jit
def cost_of(out, price, objective, results):
    """What the search makes small: pJ, cycles, or their product. `results`: m x n of all products and blocks."""
    if objective == CYCLES:
        return float(out.cycles)
    spent = out.ifmap_sram_reads * price.ifmap_read + out.ifmap_sram_writes * price.ifmap_write
    spent += out.filter_sram_reads * price.filter_read + out.filter_sram_writes * price.filter_write
    spent += out.psum_sram_reads * price.psum_read + out.psum_sram_writes * price.psum_write
    spent += out.ofmap_sram_reads * price.ofmap_read + out.ofmap_sram_writes * price.ofmap_write
    moved = out.ifmap_dram_read_bytes + out.filter_dram_read_bytes + out.psum_dram_read_bytes
    spent += (moved + out.psum_dram_write_bytes + out.ofmap_dram_write_bytes) * price.dram_byte
    spent += out.cycles * price.cycle
    if out.dataflow == OS:
        spent += out.macs * price.mac_os + results * (1 + out.psum_sram_writes // results) * price.shift_os
    elif out.dataflow == WS:
        spent += out.macs * price.mac_ws + out.filter_sram_reads * price.shift_ws
    elif out.dataflow == RS:
        spent += out.macs * price.mac_rs + out.psum_hops * price.hop
        spent += out.ifmap_scratchpad_writes * price.ifmap_delivery
        spent += out.filter_scratchpad_writes * price.filter_delivery
    else:
        spent += out.macs * price.mac_is + out.ifmap_sram_reads * price.shift_is
    return spent * out.cycles if objective == EDP else spent


@jit
def fill_moved(shape, machine, blocks, cycles, ifmap, filters, spill, out):
    """The rest of `out`, which was one block's, for all blocks."""
    out.macs *= blocks
    out.folds *= blocks
    out.array_cycles *= blocks
    out.ifmap_sram_reads *= blocks
    out.filter_sram_reads *= blocks
    out.psum_sram_writes *= blocks
    out.psum_sram_reads *= blocks
    out.ofmap_sram_writes *= blocks
    out.ofmap_sram_reads *= blocks
    out.ifmap_dram_read_bytes = np.ceil(ifmap)
    out.filter_dram_read_bytes = np.ceil(filters)
    out.psum_dram_read_bytes = np.ceil(spill)
    out.psum_dram_write_bytes = np.ceil(spill)
    out.ofmap_dram_write_bytes = np.ceil(shape.outputs * machine.ofmap_bytes) * blocks if shape.ofmap_dram else 0
    out.ifmap_sram_writes = np.ceil(ifmap / machine.ifmap_bytes)
    out.filter_sram_writes = np.ceil(filters / machine.filter_bytes)
    out.cycles = max(out.array_cycles, int(np.ceil(cycles)))
    out.stall_cycles = out.cycles - out.array_cycles
    out.utilization = out.macs / (out.cycles * machine.rows * machine.cols)


@jit
def untiled(shape, machine, dataflow, blocks, out):
    """Fill `out` for one tile in each block: the schedule of cycles_kernels, block after block; False if refused."""
    if not count_array_layer(shape, machine, dataflow, out):
        return False
    if blocks > 1:
        ifmap, filters = float(out.ifmap_dram_read_bytes) * blocks, float(out.filter_dram_read_bytes)
        if shape.k * shape.n * machine.filter_bytes > machine.filter_room:
            filters *= blocks
        spill, cycles = float(out.psum_dram_read_bytes) * blocks, float(out.cycles) * blocks
        fill_moved(shape, machine, blocks, cycles, ifmap, filters, spill, out)
    return True


@jit
def least_untiled(shape, machine, dataflow, blocks, out):
    """Fill `out` with a lower bound of `untiled`: no cycle lost but to the array or to the channel."""
    rows, cols, g = machine.rows, machine.cols, shape.products
    sr, sc, t = spatial(dataflow, shape.m, shape.k, shape.n)
    fr, fc = -(-sr // rows), -(-sc // cols)
    ifmap, ifmap_later, filters, filter_later, spill, outputs = traffic(shape, machine, dataflow, fr, fc)
    out.dataflow = dataflow
    out.macs = g * shape.m * shape.k * shape.n
    out.folds = g * fr * fc
    out.array_cycles = gemm_cycles(
        dataflow, g, shape.m, shape.k, shape.n, rows, cols, machine.overlap, machine.skip_idle
    )
    out.ifmap_sram_reads = g * shape.valid * (1 if dataflow == IS else fc)
    out.filter_sram_reads = g * shape.k * shape.n * (fr if dataflow == OS else 1 if dataflow == WS else fc)
    results = g * shape.m * shape.n * (1 if dataflow == OS else fr)
    out.psum_sram_writes = max(0, results - shape.outputs)
    out.psum_sram_reads = out.psum_sram_writes
    out.ofmap_sram_writes = shape.outputs * shape.stored
    out.ofmap_sram_reads = shape.outputs * shape.stored
    times = blocks if shape.k * shape.n * machine.filter_bytes > machine.filter_room else 1
    ifmap, filters, spill = (ifmap + ifmap_later) * g * blocks, (filters + filter_later) * g * times, spill * g * blocks
    moved = ifmap + filters + 2 * spill + outputs * g * blocks
    fill_moved(shape, machine, blocks, moved / machine.bandwidth * (1 - 1e-12), ifmap, filters, spill, out)
    return float(g) * fr * fc * (-(-t // chunk_cycles(t, rows)) + 1) <= MOST_CHUNKS


@jit
def chosen_of(choice, dataflow, blocks, mt, kt, nt, order):
    """Write a schedule into a record of search.CHOICE."""
    choice.dataflow, choice.blocks, choice.order = dataflow, blocks, order
    choice.m, choice.k, choice.n = mt, kt, nt


@jit
def least_tiled(shape, machine, blocks, tiles, out):
    """Fill `out` with a lower bound of any order of the tiles that run_tiles wrote into `tiles`: all is moved once."""
    ifmap = shape.unique * machine.ifmap_bytes * shape.ifmap_dram * shape.products * blocks
    filters = float(shape.k) * shape.n * machine.filter_bytes * shape.filter_dram * shape.products
    outputs = shape.outputs * machine.ofmap_bytes * blocks if shape.ofmap_dram else 0.0
    out[0] = tiles[0]
    cycles = (ifmap + filters + outputs) / machine.bandwidth * (1 - 1e-9)
    fill_moved(shape, machine, blocks, cycles, ifmap * (1 - 1e-9), filters * (1 - 1e-9), 0.0, out[0])


@jit
def search_layer(
    shapes, blocks, m_tiles, k_tiles, n_tiles, machine, flows, orders, price, objective, limit, out, trial, choice
):
    """The cost of the cheapest schedule of one layer, which goes into `out` and `choice`; infinite if none of the
    candidates can run, or all cost more than `limit`.

    shapes[blocks], blocks[blocks]: ways to cut the samples into blocks. flows, orders (and UNTILED): bits of what is
    tried. trial: records of COUNTS as scratch, two of them. Among schedules that cost the same the one that moves least
    wins. Every SAMPLEth pair of tiles is tried first, so that a bound rules most of the others out.
    """
    best, least_moved = np.inf, np.inf
    for sampling in (True, False):
        for dataflow in range(OS, IS + 1):
            if not flows >> dataflow & 1:
                continue
            for b in range(m_tiles.shape[0]):
                m = m_tiles[b]
                shape, times = shapes[m[BLOCK]], blocks[m[BLOCK]]
                tm = m[M_WHOLE] + m[M_LASTS]
                results = shape.products * shape.m * shape.n * times
                for a in range(k_tiles.shape[0]):
                    k = k_tiles[a]
                    tk = k[WHOLE] + k[LASTS]
                    if shape.ifmap_dram > 0 and m[LARGEST] * k[VISITED] * machine.ifmap_bytes > machine.ifmap_room:
                        continue
                    for c in range(n_tiles.shape[0]):
                        n = n_tiles[c]
                        tn = n[WHOLE] + n[LASTS]
                        if tm * tk * tn == 1:
                            continue  # untiled, below
                        if sampling and (a + b + c) % SAMPLE:
                            continue
                        if shape.filter_dram > 0 and k[TILE] * n[TILE] * machine.filter_bytes > machine.filter_room:
                            continue
                        if psums_alive(machine, dataflow, m, k, n) > machine.psum_room:
                            continue
                        run_tiles(shape, machine, dataflow, m, k, n, trial[0])
                        least_tiled(shape, machine, times, trial[:1], trial[1:])
                        if cost_of(trial[1], price, objective, results) > min(best, limit):
                            continue
                        for o in range(ORDERS.shape[0]):
                            if not orders >> o & 1 or not canonical(ORDERS[o], tm, tk, tn):
                                continue
                            cycles, ifmap, filters, spill = move_tiles(shape, machine, times, m, k, n, o, trial[0])
                            trial[1] = trial[0]
                            fill_moved(shape, machine, times, cycles, ifmap, filters, spill, trial[1])
                            cost = cost_of(trial[1], price, objective, results)
                            if sampling:
                                limit = min(limit, cost)
                                continue
                            moved = ifmap + filters + 2 * spill
                            if cost < best or (cost == best and moved < least_moved):
                                best, least_moved = cost, moved
                                out[0] = trial[1]
                                chosen_of(choice, dataflow, times, m[M_TILE], k[TILE], n[TILE], o)
    for dataflow in range(OS, IS + 1):
        if not flows >> dataflow & 1 or not orders >> UNTILED & 1:
            continue
        for b in range(shapes.shape[0]):
            shape = shapes[b]
            results = shape.products * shape.m * shape.n * blocks[b]
            if not least_untiled(shape, machine, dataflow, blocks[b], trial[0]):
                continue
            if cost_of(trial[0], price, objective, results) > min(best, limit):
                continue
            untiled(shape, machine, dataflow, blocks[b], trial[1])
            moved = float(trial[1].ifmap_dram_read_bytes + trial[1].filter_dram_read_bytes)
            moved += 2.0 * trial[1].psum_dram_read_bytes
            cost = cost_of(trial[1], price, objective, results)
            if cost < best or (cost == best and moved < least_moved):
                best, least_moved = cost, moved
                out[0] = trial[1]
                chosen_of(choice, dataflow, blocks[b], shape.m, shape.k, shape.n, 0)
    return best


@jit
def canonical(order, tm, tk, tn):
    """Whether loops of one turn come last, and in the order of their numbers: others are the same schedule."""
    for i in range(2):
        first, second = order[i], order[i + 1]
        one = (tm if first == M else tk if first == K else tn) == 1
        two = (tm if second == M else tk if second == K else tn) == 1
        if one and (not two or first > second):
            return False
    return True


@jit
def search_machines(shapes, blocks, m_tiles, k_tiles, n_tiles, first, same, machines, splits, flows, orders, prices,
                    objective, out, choice, trial):  # fmt: skip
    """All layers on each machine: out[machines, layers], choice[machines, layers].

    machines[machines, splits]: a record for each split of a shared buffer; splits: int64[layers], the one that is
    tried, or ALL_SPLITS. first: int64[layers + 1, 4], where the blocks and the tiles of m, k and n of each layer begin;
    same: int64[layers], the first layer that is just like it. flows: int64[machines]; orders: int64[layers], bits.
    trial: three records of COUNTS as scratch. Returns the first layer that has no schedule, and stops there; or -1.
    """
    chosen = np.zeros_like(choice[0, :1])
    for p in range(machines.shape[0]):
        for i in range(same.shape[0]):
            b0, m0, k0, n0 = first[i]
            b1, m1, k1, n1 = first[i + 1]
            if same[i] < i:
                out[p, i], choice[p, i] = out[p, same[i]], choice[p, same[i]]
            elif not shapes[b0].on_array:
                count_vector_layer(shapes[b0], machines[p, 0], out[p, i])
            else:
                least = np.inf
                for split in range(machines.shape[1]):
                    if splits[i] not in (ALL_SPLITS, split):
                        continue
                    cost = search_layer(
                        shapes[b0:b1], blocks[b0:b1], m_tiles[m0:m1], k_tiles[k0:k1], n_tiles[n0:n1],
                        machines[p, split], flows[p, i], orders[i], prices[p], objective, least, trial[2:], trial[:2],
                        chosen[0],
                    )  # fmt: skip
                    if cost < least:
                        least, out[p, i], choice[p, i] = cost, trial[2], chosen[0]
                        choice[p, i].split = split
                if least == np.inf:
                    return i
    return -1
