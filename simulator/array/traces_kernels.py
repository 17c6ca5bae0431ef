"""Events at the ports of the array in the cycles that dataflow.py gives; plain integers."""

from simulator.array.dataflow_kernels import OS, WS, spatial
from sram.jit import jit

IFMAP_READ, FILTER_READ, PSUM_READ, PSUM_WRITE, OFMAP_WRITE = range(5)


@jit
def ifmap_address(shape, product, row, k):
    """Element of the input (torch order) that row `row` of a product wants at tap k; -1 in the padding."""
    if not shape.is_conv:
        sample, group, line = place_of(shape, product, row)
        return ((sample * shape.m + line) * shape.groups + group) * shape.k + k
    sample, pixel = divmod(row, shape.m)
    sample += shape.first_sample
    oy, ox = divmod(pixel, shape.out_w)
    channel, tap = divmod(k, shape.kernel_h * shape.kernel_w)
    ky, kx = divmod(tap, shape.kernel_w)
    y = oy * shape.stride_h - shape.padding_top + ky * shape.dilation_h
    x = ox * shape.stride_w - shape.padding_left + kx * shape.dilation_w
    if y < 0 or y >= shape.in_h or x < 0 or x >= shape.in_w:
        return -1
    plane = sample * shape.in_channels + product * (shape.in_channels // shape.groups) + channel
    return (plane * shape.in_h + y) * shape.in_w + x


@jit
def filter_address(shape, product, k, n):
    """Element of the weights as stored, or of the second activation of a matmul (samples, groups, k, n)."""
    n += shape.first_n
    if shape.is_matmul:
        product += shape.first_sample * shape.groups
    if shape.k_major:
        return (product * shape.k + k) * shape.all_n + n
    return (product * shape.all_n + n) * shape.k + k


@jit
def ofmap_address(shape, product, row, n):
    """Element of the output, torch order."""
    n += shape.first_n
    if not shape.is_conv:
        sample, group, line = place_of(shape, product, row)
        return ((sample * shape.m + line) * shape.groups + group) * shape.all_n + n
    sample, pixel = divmod(row, shape.m)
    return (((shape.first_sample + sample) * shape.groups + product) * shape.all_n + n) * shape.m + pixel


@jit
def place_of(shape, product, row):
    """(sample, group, row of the sample): a matmul has a product for each sample and group, a linear layer one for
    each group."""
    if shape.is_matmul:
        return shape.first_sample + product // shape.groups, product % shape.groups, row
    return shape.first_sample + row // shape.m, product, row % shape.m


@jit
def fold_events(
    shape, dataflow, overlap, array_rows, array_cols, skip, tile, fold, begin, end, cycle, operand, address
):
    """Events of one fold in cycles [begin, end), sorted by cycle, into three arrays; returns how many.

    tile: (product, first row of the product, rows, first tap, taps, first filter, filters). fold, in the tile: (first
    row, rows used, first column, columns used, clock, drain). clock is the fold's first cycle, with overlap the cycle
    in which its stream starts at PE(0, 0); drain that in which its results do.
    """
    product, m0, m_tile, k0, k_tile, n0, n_tile = tile
    r0, u, c0, v, clock, drain = fold
    _, _, t_all = spatial(dataflow, m_tile, k_tile, n_tile)
    if dataflow == OS:
        first, done = k0 == 0, k0 + k_tile == shape.k
    else:
        first, done = k0 + r0 == 0, k0 + r0 + u == shape.k
    used_rows = u if skip else array_rows
    idle = array_rows - u  # used rows are the last ones
    at = 0
    for now in range(begin, end):
        for i in range(u):  # left edge: os ifmap, ws ifmap, is filters
            if dataflow == OS or overlap:
                t = now - clock - (idle + i)
            else:
                t = now - clock - array_rows - (used_rows - u + i)
            if 0 <= t < t_all:
                if dataflow == OS:
                    where = ifmap_address(shape, product, m0 + r0 + i, k0 + t)
                elif dataflow == WS:
                    where = ifmap_address(shape, product, m0 + t, k0 + r0 + i)
                else:
                    where = filter_address(shape, product, k0 + r0 + i, n0 + t)
                if where >= 0:
                    cycle[at], address[at] = now, where
                    operand[at] = IFMAP_READ if dataflow <= WS else FILTER_READ
                    at += 1
        for j in range(v):  # top edge
            if dataflow == OS:
                t = now - clock - j
                if 0 <= t < t_all:
                    cycle[at], operand[at] = now, FILTER_READ
                    address[at] = filter_address(shape, product, k0 + t, n0 + c0 + j)
                    at += 1
                continue
            i = now - clock + u - j if overlap else u - 1 - (now - clock)
            if 0 <= i < u:
                if dataflow == WS:
                    where = filter_address(shape, product, k0 + r0 + i, n0 + c0 + j)
                else:
                    where = ifmap_address(shape, product, m0 + c0 + j, k0 + r0 + i)
                if where >= 0:
                    cycle[at], address[at] = now, where
                    operand[at] = FILTER_READ if dataflow == WS else IFMAP_READ
                    at += 1
        for j in range(v):  # bottom edge
            if dataflow == OS:
                i = u - 1 - (now - drain - (array_rows - 1 + j if overlap else 0))
                if 0 <= i < u:
                    where = ofmap_address(shape, product, m0 + r0 + i, n0 + c0 + j)
                    if not first:
                        cycle[at], operand[at], address[at] = now, PSUM_READ, where
                        at += 1
                    cycle[at], address[at] = now, where
                    operand[at] = OFMAP_WRITE if done else PSUM_WRITE
                    at += 1
                continue
            t = now - clock - j - (array_rows - 1 if overlap else array_rows + used_rows - 1)
            if 0 <= t < t_all:
                row, n = (t, c0 + j) if dataflow == WS else (c0 + j, t)
                where = ofmap_address(shape, product, m0 + row, n0 + n)
                if not first:
                    cycle[at], operand[at], address[at] = now, PSUM_READ, where
                    at += 1
                cycle[at], address[at] = now, where
                operand[at] = OFMAP_WRITE if done else PSUM_WRITE
                at += 1
    return at
