"""Buffers and DRAM on plain numbers: what a tile touches, what is fetched again, when the array waits (memory.py)."""

import numpy as np

from sram.jit import jit

QUEUE = 16  # transfers that may be under way at once, reads ahead of their use and writes behind their result


@jit
def touched(in_h, in_w, kh, kw, sh, sw, top, left, dh, dw, oh, ow, tile):
    """(valid, pixels, tiled, largest), see memory.touched."""
    stamp = np.full((in_h, in_w), -1, np.int64)
    ever = np.zeros((in_h, in_w), np.bool_)
    valid, pixels, tiled, largest, here = 0, 0, 0, 0, 0
    for p in range(oh * ow):
        number = p // tile
        if p % tile == 0:
            here = 0
        y0, x0 = p // ow * sh - top, p % ow * sw - left
        for y in range(y0, y0 + kh * dh, dh):
            if y < 0 or y >= in_h:
                continue
            for x in range(x0, x0 + kw * dw, dw):
                if x < 0 or x >= in_w:
                    continue
                valid += 1
                if stamp[y, x] != number:
                    stamp[y, x] = number
                    here += 1
                    tiled += 1
                if not ever[y, x]:
                    ever[y, x] = True
                    pixels += 1
        largest = max(largest, here)
    return valid, pixels, tiled, largest


@jit
def axis_touched(outputs, tile, size, kernel, stride, padding, dilation):
    """Along one axis: input positions that tiles of `tile` outputs touch, in sum, and the most that one touches."""
    total, most = 0, 0
    if dilation == 1 and stride <= kernel:  # windows without gaps
        for start in range(0, outputs, tile):
            last = min(start + tile, outputs) - 1
            here = min(size, last * stride - padding + kernel) - max(0, start * stride - padding)
            total += max(0, here)
            most = max(most, here)
        return total, most
    stamp = np.full(size, -1, np.int64)
    for start in range(0, outputs, tile):
        here = 0
        for p in range(start, min(start + tile, outputs)):
            for i in range(kernel):
                at = p * stride - padding + i * dilation
                if 0 <= at < size and stamp[at] != start:
                    stamp[at] = start
                    here += 1
        total += here
        most = max(most, here)
    return total, most


@jit
def channel_visits(k, taps, rows):
    """Channels that slices of `rows` taps (torch order) touch, summed over the slices, and the most in one slice."""
    total, most = 0, 0
    for start in range(0, k, rows):
        here = (min(start + rows, k) - 1) // taps - start // taps + 1
        total += here
        most = max(most, here)
    return total, most


@jit
def kept(room, need, without, saved):
    """Traffic when `need` bytes of room save `saved` of `without`; in less room a part is pinned and saves its part."""
    if room >= need:
        return without - saved
    return without - saved * max(room, 0.0) / need


@jit
def tiers(room, need1, need2, need3, traffic0, traffic1, traffic2, traffic3):
    """Traffic of a sweep over an operand when room need1 <= need2 <= need3 lowers it to traffic1 >= 2 >= 3.

    Between two tiers the room above the lower one pins a part of what the upper one keeps.
    """
    if room >= need3:
        return traffic3
    if room >= need2:
        return kept(room - need2, need3, traffic2, traffic2 - traffic3)
    if room >= need1:
        return kept(room - need1, need2, traffic1, traffic1 - traffic2)
    return kept(room, need1, traffic0, traffic0 - traffic1)


@jit
def run(start, length, bytes_in, result, bytes_out, bandwidth, latency, depth):
    """(cycles the array stands still, cycle of the last write's end) of a schedule on one shared DRAM channel.

    start, length, bytes_in [chunks]: the array's clock when a chunk of operands is first needed, its cycles, its bytes.
    result, bytes_out [results]: the array's clock when a result is complete, its bytes. Both sorted by time.
    depth: chunks that the buffer holds, the one in use among them. The channel serves in a fixed order.
    """
    chunks, results = start.shape[0], result.shape[0]
    delay = np.zeros(chunks)
    channel, still = 0.0, 0.0
    r, seen = 0, 0
    for q in range(chunks + 1):
        # results that are at least QUEUE chunks old go before the fetch of chunk q
        old = q - QUEUE
        while r < results and (q >= chunks or (old >= 0 and result[r] <= start[old])):
            if bytes_out[r] > 0:
                while seen + 1 < chunks and start[seen + 1] < result[r]:
                    seen += 1
                channel = max(channel, result[r] + delay[seen]) + bytes_out[r] / bandwidth
            r += 1
        if q >= chunks:
            break
        ready = 0.0
        if bytes_in[q] > 0:
            if q >= depth:  # when the last operand of an earlier chunk has entered the array
                end = start[q - depth] + length[q - depth]
                last = q - depth
                while start[last + 1] < end:
                    last += 1
                channel = max(channel, end + delay[min(last, q - 1)])
            channel += bytes_in[q] / bandwidth
            ready = channel + latency
        still = max(still, ready - start[q])
        delay[q] = still
    return still, channel
