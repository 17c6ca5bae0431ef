"""When each operand enters a systolic array, and how many cycles a matrix product takes.

The array has R rows and C columns of processing elements PE(i, j). A product (m x k) @ (k x n) is cut into folds:

    dataflow   rows hold      columns hold    a fold streams     stays in the PE
    os         output pixel m  filter n       T = k taps         the output
    ws         tap k           filter n       T = m pixels       the weight
    is         tap k           pixel m        T = n filters      the input

A fold uses u <= R rows and v <= C columns; there are fr = ceil(rows needed / R) times fc = ceil(columns needed / C) folds, fc outside, fr
inside. Operands enter row i at the left edge and column j at the top edge and move one PE a cycle; results leave at the bottom
edge, one word a column a cycle. The used rows are the last ones, R-u..R-1, next to the exit; the used columns are the first ones.

Timing without overlap (cycle 0 is the first of the fold; a fold starts when the last has ended):

    os  a[i, t] enters row R-u+i at the left in cycle t + (R-u+i);   b[t, j] enters column j at the top in cycle t + j;
        PE(r, j) multiplies and accumulates term t in cycle t + r + j, the last in cycle T-1 + R-1 + C'-1 (C' = v);
        then the columns shift down: in cycle T+R+v-2 + d (d = 0..u-1) row R-1-d of the fold leaves the bottom edge.
    ws  weights shift down for R cycles: those of row R-1 enter at the top in cycle R-u, those of row R-u in cycle R-1;
        x[t, i] (pixel t, tap i of the fold) enters row R-u+i at the left in cycle R + t + i; the partial sum of pixel t passes row
        R-u+i of column j in cycle R + t + i + j, and leaves the bottom edge in the cycle of its last addition, R + t + u-1 + j.
    is  the same as ws, with inputs for weights and filters for pixels.

Both end after T + R + u + v - 2 cycles (2R + C + T - 2 for a whole fold): R rows are crossed once by what enters at the top and leaves
at the bottom, used or not. Without `skip_idle_rows` every fold takes u = R and v = C.

With overlap (double-buffered registers: each PE holds a second stationary word, or for os a second accumulator) the skew of a fold
hides under its neighbours. Control moves with the wave, so PE(r, j) lags PE(0, 0) by r + j cycles all the time. In the clock of PE(0, 0):

    ws, is  fold f loads its u_f stationary rows, one a cycle, while fold f-1 streams: S_0 = u_0, S_f = S_{f-1} + max(T, u_f);
            it ends at S_f + T + R + v_f - 2.
    os      fold f shifts its u_f result rows out while fold f+1 accumulates in the other register, which must be empty again by then:
            S_0 = 0, S_{f+1} = S_f + max(T, u_{f-1}); its drain starts at S_{f+1} and it ends at S_{f+1} + u_f + R + v_f - 2.

A single fold takes T + R + u + v - 2 cycles in both modes. Zero bubbles otherwise: in the steady state a fold costs max(T, u).
Adding up partial sums of the fr folds of one output (ws, is) happens at the bottom edge, in the cycle in which they leave.
"""

from sram.errors import InputError

from . import dataflow_kernels as kernels

CODES = {"os": kernels.OS, "ws": kernels.WS, "is": kernels.IS}
NAMES = {code: name for name, code in CODES.items()}


def code(dataflow: str) -> int:
    """The kernels' number of a dataflow.

    >>> code("ws")
    1
    """
    if dataflow not in CODES:
        raise InputError("dataflow", "name", dataflow, ", ".join(CODES))
    return CODES[dataflow]


def spatial(dataflow: str, m: int, k: int, n: int) -> tuple[int, int, int]:
    """(rows needed, columns needed, cycles streamed) of a product (m x k) @ (k x n).

    >>> spatial("os", 100, 27, 64), spatial("ws", 100, 27, 64), spatial("is", 100, 27, 64)
    ((100, 64, 27), (27, 64, 100), (27, 100, 64))
    """
    return kernels.spatial(code(dataflow), m, k, n)


def fold_cycles(
    dataflow: str, rows_used: int, cols_used: int, t: int, rows: int, cols: int, overlap: bool = False
) -> int:
    """Cycles of one fold alone; with `overlap`, what one more such fold adds to a run of equal folds.

    >>> fold_cycles("ws", 32, 32, 100, 32, 32), fold_cycles("ws", 27, 10, 100, 32, 32)
    (194, 167)
    >>> fold_cycles("os", 32, 32, 100, 32, 32, overlap=True)
    100
    """
    code(dataflow)
    _check(rows_used, rows, "rows_used")
    _check(cols_used, cols, "cols_used")
    return max(t, rows_used) if overlap else t + rows + rows_used + cols_used - 2


def gemm_cycles(
    dataflow: str,
    m: int,
    k: int,
    n: int,
    rows: int,
    cols: int,
    overlap: bool = False,
    skip_idle_rows: bool = False,
    products: int = 1,
) -> int:
    """Cycles of `products` products (m x k) @ (k x n), one after the other, when no operand ever comes late.

    >>> gemm_cycles("os", 32, 100, 64, 32, 32) == 2 * fold_cycles("os", 32, 32, 100, 32, 32)
    True
    >>> gemm_cycles("ws", 100, 64, 32, 32, 32, overlap=True)  # load 32, stream 2 x 100, cross the array
    294
    """
    return kernels.gemm_cycles(code(dataflow), products, m, k, n, rows, cols, overlap, skip_idle_rows)


def _check(used: int, available: int, key: str) -> None:
    if not 1 <= used <= available:
        raise InputError("fold", key, used, f"1 to {available}, what the array has")
