"""Loops over the faulty words only: faults into words, SECDED, masking, greedy repair.

Shapes: stored, seen uint64[m] are what was written to and what is read from m memory words; row int64[m] says which of
the w faulty words of a fault map each lies in (several contents may pass through one); the faults of faulty word r are
start[r] .. start[r + 1] (start int64[w + 1]) of bit uint8[k], kind uint8[k] (0 stuck at 0, 1 stuck at 1, 2 flip).
"""

import numpy as np

from sram.jit import jit

ONE = np.uint64(1)
ZERO = np.uint64(0)


@jit
def parity(x):
    """Parity of a uint64."""
    for shift in (32, 16, 8, 4, 2, 1):
        x ^= x >> np.uint64(shift)
    return x & ONE


@jit
def read_faulty(word, first, last, bit, kind, base, count):
    """`word` as read when its bits base .. base + count lie at bits 0 .. count, through faults first .. last."""
    for f in range(first, last):
        b = int(bit[f]) - base
        if b < 0 or b >= count:
            continue
        mask = ONE << np.uint64(b)
        if kind[f] == 0:
            word &= ~mask
        elif kind[f] == 1:
            word |= mask
        else:
            word ^= mask
    return word


@jit
def apply_faults(stored, row, start, bit, kind, data_bits, seen):
    """Read the stored words row[i] through their faults, into seen; bits from `data_bits` on are no data."""
    for i in range(stored.shape[0]):
        r = row[i]
        seen[i] = read_faulty(stored[i], start[r], start[r + 1], bit, kind, 0, data_bits)


@jit
def encode(data, masks):
    """Check bits of one block: bit j is the parity of the data bits in masks[j]."""
    check = ZERO
    for j in range(masks.shape[0]):
        check |= parity(data & masks[j]) << np.uint64(j)
    return check


@jit
def secded(stored, row, start, bit, kind, masks, position, block_bits, data_bits, seen, detected):
    """Correct `seen` block by block. Check bits of block c are bits data_bits + c * checks of the memory word.

    position int8[2^checks]: what a syndrome points at: data bit, block_bits or more for a check bit, -1 for no single
    bit. detected bool[m]: some block had an error that is known but not corrected.
    """
    checks = masks.shape[0]
    blocks = data_bits // block_bits
    block_mask = ~ZERO if block_bits == 64 else (ONE << np.uint64(block_bits)) - ONE
    for i in range(stored.shape[0]):
        r = row[i]
        for c in range(blocks):
            shift = np.uint64(c * block_bits)
            written = encode((stored[i] >> shift) & block_mask, masks)
            base = data_bits + c * checks
            check = read_faulty(written, start[r], start[r + 1], bit, kind, base, checks)
            syndrome = encode((seen[i] >> shift) & block_mask, masks) ^ check
            if syndrome == ZERO:
                continue
            where = position[syndrome]
            if where < 0:
                detected[i] = True
            elif where < block_bits:
                seen[i] ^= ONE << (shift + np.uint64(where))


@jit
def mask_wrong(stored, fields, signs, by_bit, seen):
    """Minerva: weight s of a word has its bits in fields[s] (uint64), its sign at bit signs[s].

    By word, a weight with a wrong bit becomes 0; by bit, wrong bits take the value of the sign as read. A weight whose
    sign itself is wrong becomes 0 either way.
    """
    for i in range(stored.shape[0]):
        wrong = stored[i] ^ seen[i]
        if wrong == ZERO:
            continue
        for s in range(fields.shape[0]):
            bad = wrong & fields[s]
            if bad == ZERO:
                continue
            sign = ONE << np.uint64(signs[s])
            if not by_bit or bad & sign:
                seen[i] &= ~fields[s]
            elif seen[i] & sign:
                seen[i] |= bad
            else:
                seen[i] &= ~bad


@jit
def greedy_lines(row, column, rows, columns, spare_rows, spare_columns, replaced_rows, replaced_columns):
    """Replace the line with most faults left, again and again; ties go to columns, then to the lower number.

    row, column int64[k] of the faults of one bank; out: replaced_rows bool[rows], replaced_columns bool[columns].
    """
    by_row = np.zeros(rows, np.int64)
    by_column = np.zeros(columns, np.int64)
    left = np.ones(row.shape[0], np.bool_)
    for f in range(row.shape[0]):
        by_row[row[f]] += 1
        by_column[column[f]] += 1
    while spare_rows + spare_columns > 0:
        r, c = np.argmax(by_row), np.argmax(by_column)
        best_row = by_row[r] if spare_rows > 0 else 0
        best_column = by_column[c] if spare_columns > 0 else 0
        if max(best_row, best_column) == 0:
            return
        take_column = best_column >= best_row
        if take_column:
            replaced_columns[c] = True
            spare_columns -= 1
        else:
            replaced_rows[r] = True
            spare_rows -= 1
        for f in range(row.shape[0]):
            if left[f] and (column[f] == c if take_column else row[f] == r):
                left[f] = False
                by_row[row[f]] -= 1
                by_column[column[f]] -= 1
