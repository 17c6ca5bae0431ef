"""The counts of one layer. `shape`, `machine` and `out` are records of cycles.SHAPE, MACHINE and COUNTS."""

import numpy as np

from simulator.array.dataflow_kernels import IS, OS, WS, gemm_cycles, spatial
from simulator.array.memory_kernels import QUEUE, channel_visits, kept, run, tiers
from sram.jit import jit

CHUNKS_PER_FOLD = 16
MOST_CHUNKS = 2**28  # of a layer: 10 GiB while it is scheduled


@jit
def traffic(shape, machine, dataflow, fr, fc):
    """DRAM bytes of one product: (ifmap first sweep, later sweeps, filters first, again, partial sums, outputs).

    Partial sums are written and read back: the number counts one of the two.
    """
    k, n, rows, cols = shape.k, shape.n, machine.rows, machine.cols
    _, sc, t = spatial(dataflow, shape.m, k, n)
    scale = shape.channels * machine.ifmap_bytes
    unique, valid = shape.unique * machine.ifmap_bytes, shape.valid * machine.ifmap_bytes
    filters = k * n * machine.filter_bytes
    room = machine.ifmap_room
    visits, most = channel_visits(k, shape.taps, rows)
    ifmap_later, filter_later, spill = 0.0, 0.0, 0.0
    if dataflow == OS:
        # Each column of folds sweeps the input once, tile after tile of output pixels; its filters serve all its folds.
        tile, tiled = shape.row_tile_largest * scale, shape.row_tile_sum * scale
        window = max(tile, min(shape.row_window * scale, unique))
        ifmap = tiers(room, tile, window, unique, valid, tiled, unique, unique)
        ifmap_later = (fc - 1) * tiers(room, tile, window, unique, valid, tiled, unique, 0.0)
        for width, times in ((cols, fc - 1), (sc - (fc - 1) * cols, 1)):
            size = k * width * machine.filter_bytes
            filter_later += times * (fr - 1) * kept(machine.filter_room, size, size, size)
    elif dataflow == WS:
        # Each column of folds sweeps the input once, slice after slice of taps.
        slices = min(visits * shape.pixels * machine.ifmap_bytes, valid)
        window = min(shape.row_window * most * machine.ifmap_bytes, unique)
        ifmap = tiers(room, window, window, unique, valid, slices, slices, unique)
        ifmap_later = (fc - 1) * tiers(room, window, window, unique, valid, slices, slices, 0.0)
    else:
        # One sweep over the input, tile after tile of output pixels; each tile sweeps the filters.
        tile = min(shape.col_tile_largest * most * machine.ifmap_bytes, unique)
        tiled = max(unique, min(shape.col_tile_sum * visits * machine.ifmap_bytes, valid))
        window = max(tile, min(shape.col_window * scale, unique))
        ifmap = tiers(room, tile, window, window, valid, tiled, unique, unique)
        filter_later = (fc - 1) * kept(machine.filter_room, filters, filters, filters)
    if dataflow != OS and fr > 1:
        # The sums of a column of folds wait in the output buffer for the next slice of taps; what does not fit goes
        # to DRAM.
        for width, times in ((cols, fc - 1), (sc - (fc - 1) * cols, 1)):
            spill += times * (fr - 1) * max(0.0, t * width * machine.psum_bytes - machine.psum_room)
    outputs = shape.outputs * machine.ofmap_bytes / shape.products
    return (
        ifmap * shape.ifmap_dram,
        ifmap_later * shape.ifmap_dram,
        filters * shape.filter_dram,
        filter_later * shape.filter_dram,
        spill,
        outputs if shape.ofmap_dram else 0.0,
    )


@jit
def fold_bytes(dataflow, moved, prefetch, sr, sc, rows, cols, fr, fc, g, r, c, products):
    """Bytes (needed before the fold, needed while it streams, written at its end) of fold (r, c) of product g."""
    ifmap, ifmap_later, filters, filter_later, spill, outputs = moved
    u, v = min(rows, sr - r * rows), min(cols, sc - c * cols)
    share = u * v / (sr * sc)
    if dataflow == OS:
        stream = (ifmap if c == 0 else ifmap_later / (fc - 1)) / fr
        if r > 0:
            stream += filter_later / (fc * (fr - 1))
        elif not prefetch or (g == 0 and c == 0):
            stream += filters * v / sc
        if prefetch and not (g == products - 1 and c == fc - 1):  # the next column's filters trickle in
            following = sc - (c + 1) * cols if c < fc - 1 else sc
            stream += filters * min(cols, following) / sc / fr
        return 0.0, stream, outputs * share
    if dataflow == WS:
        load, stream = filters * share, (ifmap if c == 0 else ifmap_later / (fc - 1)) / fr
    else:
        load, stream = ifmap * share, (filters if c == 0 else filter_later / (fc - 1)) / fr
    if r > 0:
        stream += spill / (fc * (fr - 1))
    return load, stream, outputs * v / sc if r == fr - 1 else spill / (fc * (fr - 1))


@jit
def chunk_cycles(t, rows):
    """Cycles of a chunk of a stream of t: at least as long as a load, at most CHUNKS_PER_FOLD of them."""
    return -(-t // min(CHUNKS_PER_FOLD, -(-t // rows)))


@jit
def schedule(shape, machine, dataflow, fr, fc, moved):
    """Operands and results of all folds in the array's own time (dataflow.py), as memory_kernels.run takes them.

    (start, length, bytes_in, result, bytes_out); a fold streams in at most CHUNKS_PER_FOLD chunks, after its load.
    """
    sr, sc, t = spatial(dataflow, shape.m, shape.k, shape.n)
    rows, cols, products, stationary = machine.rows, machine.cols, shape.products, dataflow != OS
    step = chunk_cycles(t, rows)
    pieces = -(-t // step)
    folds = products * fr * fc
    start = np.empty(folds * (pieces + 1), np.int64)
    length = np.empty(folds * (pieces + 1), np.int64)
    bytes_in = np.empty(folds * (pieces + 1))
    result = np.empty(folds, np.int64)
    bytes_out = np.empty(folds)
    q, f, clock, drained, latest = 0, 0, 0, 0, 0
    for g in range(products):
        for c in range(fc):
            for r in range(fr):
                u = min(rows, sr - r * rows) if machine.skip_idle else rows
                v = min(cols, sc - c * cols) if machine.skip_idle else cols
                load, stream, write = fold_bytes(
                    dataflow, moved, machine.depth > 1, sr, sc, rows, cols, fr, fc, g, r, c, products
                )
                # `clock` becomes the cycle in which the first streaming operand enters; the load comes before it.
                load_at, load_length = clock, 0
                if stationary:
                    load_length = u if machine.overlap else rows
                    if not machine.overlap:
                        clock += rows
                    else:
                        clock = u if f == 0 else clock + max(t, u)
                        load_at = clock - u
                at = q  # an overlapped load comes before the last chunks of the fold ahead
                while at > 0 and start[at - 1] > load_at:
                    start[at], length[at], bytes_in[at] = start[at - 1], length[at - 1], bytes_in[at - 1]
                    at -= 1
                start[at], length[at], bytes_in[at] = load_at, load_length, load
                q += 1
                for piece in range(pieces):
                    start[q] = clock + piece * step
                    length[q] = min(step, t - piece * step)
                    bytes_in[q] = stream * length[q] / t
                    q += 1
                end = clock + t + u + v - 2 + (0 if stationary else rows)
                if machine.overlap:
                    end = clock + t + rows + v - 2
                    if not stationary:
                        clock = max(clock + t, drained)  # the fold drains from here on, the next one starts
                        drained = clock + u
                        end = drained + rows + v - 2
                else:
                    clock = end
                latest = max(latest, end)  # a narrow fold may end before a wide one ahead of it: written in order
                result[f], bytes_out[f] = latest, write
                f += 1
    return start, length, bytes_in, result, bytes_out


@jit
def count_array_layer(shape, machine, dataflow, out):
    """Fill `out` for a layer on the array; False if its schedule has more than MOST_CHUNKS."""
    g, m, k, n = shape.products, shape.m, shape.k, shape.n
    rows, cols = machine.rows, machine.cols
    sr, sc, t = spatial(dataflow, m, k, n)
    fr, fc = -(-sr // rows), -(-sc // cols)
    out.dataflow = dataflow
    out.macs = g * m * k * n
    out.folds = g * fr * fc
    out.array_cycles = gemm_cycles(dataflow, g, m, k, n, rows, cols, machine.overlap, machine.skip_idle)
    out.mapping_efficiency = sr * sc / (fr * fc * rows * cols)

    moved = traffic(shape, machine, dataflow, fr, fc)
    ifmap, ifmap_later, filters, filter_later, spill, outputs = moved
    out.ifmap_dram_read_bytes = np.ceil(g * (ifmap + ifmap_later))
    out.filter_dram_read_bytes = np.ceil(g * (filters + filter_later))
    out.psum_dram_read_bytes = np.ceil(g * spill)
    out.psum_dram_write_bytes = np.ceil(g * spill)
    out.ofmap_dram_write_bytes = np.ceil(g * outputs)

    # Words at the ports of the buffers, one element each; padding is generated, not read.
    out.ifmap_sram_reads = g * shape.valid * (1 if dataflow == IS else fc)
    out.filter_sram_reads = g * k * n * (fr if dataflow == OS else 1 if dataflow == WS else fc)
    out.ifmap_sram_writes = np.ceil(g * (ifmap + ifmap_later) / machine.ifmap_bytes)
    out.filter_sram_writes = np.ceil(g * (filters + filter_later) / machine.filter_bytes)
    results = g * m * n * (1 if dataflow == OS else fr)
    out.psum_sram_writes = max(0, results - shape.outputs)
    out.psum_sram_reads = out.psum_sram_writes
    out.ofmap_sram_writes = shape.outputs * shape.stored
    out.ofmap_sram_reads = shape.outputs * shape.stored
    out.vector_operations = 0

    out.cycles = out.array_cycles
    ideal = np.isinf(machine.bandwidth) and machine.latency == 0
    if not ideal and ifmap + filters + spill + outputs > 0:
        if float(g) * fr * fc * (-(-t // chunk_cycles(t, rows)) + 1) > MOST_CHUNKS:
            return False
        start, length, bytes_in, result, bytes_out = schedule(shape, machine, dataflow, fr, fc, moved)
        depth = machine.depth
        if depth > 1:  # chunks in the half that fills, and the one in use
            chunk = max(chunk_cycles(t, rows), rows) * max(rows, cols) * max(machine.ifmap_bytes, machine.filter_bytes)
            depth = int(max(2.0, min(float(QUEUE), machine.stage_bytes // chunk + 1)))
        still, written = run(start, length, bytes_in, result, bytes_out, machine.bandwidth, machine.latency, depth)
        out.cycles = int(np.ceil(max(out.array_cycles + still, written)))
    out.stall_cycles = out.cycles - out.array_cycles
    out.utilization = out.macs / (out.cycles * rows * cols)
    return True


@jit
def count_vector_layer(shape, machine, out):
    """Fill `out` for a layer on the vector unit: one operation a lane a cycle, its DRAM traffic beside it."""
    out.dataflow = -1
    out.vector_operations = shape.operations
    out.array_cycles = -(-shape.operations // machine.lanes)
    out.ifmap_sram_reads = shape.elements_read
    out.ifmap_sram_writes = shape.elements_dram
    out.filter_sram_reads = shape.constant_reads
    out.filter_sram_writes = shape.constants
    out.ofmap_sram_writes = shape.outputs * shape.stored
    out.ofmap_sram_reads = shape.outputs * shape.stored
    constants = shape.constants * machine.filter_bytes
    read = shape.elements_dram * machine.ifmap_bytes
    write = shape.outputs * machine.ofmap_bytes if shape.ofmap_dram else 0.0
    out.ifmap_dram_read_bytes = np.ceil(read)
    out.filter_dram_read_bytes = np.ceil(constants)
    out.ofmap_dram_write_bytes = np.ceil(write)
    moved = read + constants + write
    transfer = moved / machine.bandwidth + (machine.latency if moved > 0 else 0)
    out.cycles = max(out.array_cycles, int(np.ceil(transfer)))
    out.stall_cycles = out.cycles - out.array_cycles


@jit
def count_machines(shapes, machines, dataflows, out, trial):
    """All layers on each machine, out[machines, layers]; dataflow 3 takes the fastest of the three for each layer.

    `trial` is scratch, one row of COUNTS. Returns the first layer that `count_array_layer` refuses, and stops there; or
    -1.
    """
    for p in range(machines.shape[0]):
        for i in range(shapes.shape[0]):
            if not shapes[i].on_array:
                count_vector_layer(shapes[i], machines[p], out[p, i])
                continue
            first, last = (OS, IS) if dataflows[p] > IS else (dataflows[p], dataflows[p])
            for each in range(first, last + 1):
                if not count_array_layer(shapes[i], machines[p], each, trial[0]):
                    return i
                if each == first or trial[0].cycles < out[p, i].cycles:
                    out[p, i] = trial[0]
    return -1
