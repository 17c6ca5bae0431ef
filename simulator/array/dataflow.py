"""When each operand enters a systolic array, and how many cycles a matrix product takes.

The array has R rows and C columns of processing elements PE(r, j). A product (m x k) @ (k x n) is cut into folds:

    dataflow   rows hold       columns hold    a fold streams     stays in the PE
    os         output pixel m  filter n        T = k taps         the output
    ws         tap k           filter n        T = m pixels       the weight
    is         tap k           pixel m         T = n filters      the input

A fold uses u <= R rows and v <= C columns. There are fr = ceil(rows needed / R) times fc = ceil(columns needed / C)
folds, fc outside, fr inside. Operands enter row r at the left edge and column j at the top edge and move one PE a
cycle; results leave at the bottom edge, one word a column a cycle. The used rows are the last ones, R-u..R-1, next to
the exit; the used columns are the first ones, 0..v-1.

**Without overlap.** Cycle 0 is the first of the fold; a fold starts when the one before has ended.

    os  a[i, t] enters row R-u+i at the left in cycle t + R-u+i;  b[t, j] enters column j at the top in cycle t + j.
        PE(r, j) multiplies and accumulates term t in cycle t + r + j, the last of all in cycle T-1 + R-1 + v-1.
        Then the columns shift down: in cycle T+R+v-2 + d, d = 0..u-1, row R-1-d leaves at the bottom of all columns.
    ws  Weights shift down for R cycles, unskewed: those of row R-1 enter at the top in cycle 0, those of row R-u in
        cycle u-1, and after cycle R-1 all are in place. x[t, i] (pixel t, tap i of the fold) enters row R-u+i at the
        left in cycle R + t + i. Column j adds row R-u+i to the sum of pixel t in cycle R + t + i + j; the sum leaves at
        the bottom in the cycle of its last addition, R + t + u-1 + j.
    is  The same, inputs in place of weights and filters in place of pixels.

Either takes T + R + u + v - 2 cycles, 2R + C + T - 2 for a whole fold: whatever enters at the top and leaves at the
bottom crosses R rows, used or not. Without `skip_idle_rows` every fold takes the time of u = R and v = C.

**With overlap** (double-buffered registers: a PE holds a second stationary word, or for os a second accumulator), a
fold's skew hides under its neighbours. Control moves with the wave, PE(r, j) lags PE(0, 0) by r + j cycles all the
time. In the clock of PE(0, 0), which is a fold's start S_f plus t when term or pixel t of fold f is there:

    ws, is  Fold f loads its u_f stationary rows, one a cycle, while fold f-1 streams; a word travels down its column
            with its row number, and the PE of that row keeps it. S_0 = u_0, S_f = S_{f-1} + max(T, u_f). The last
            result leaves, and the fold ends, after cycle S_f + T + R + v_f - 3.
    os      Fold f shifts its u_f rows of results out, one a cycle, while fold f+1 accumulates in the other register. It
            can start when its own T terms are through and the rows of fold f-1 are out: D_f = S_f + max(T, u_{f-1}),
            and fold f+1 starts then, S_{f+1} = D_f (S_0 = 0). The fold ends after cycle D_f + u_f + R + v_f - 3.

One fold alone takes T + R + u + v - 2 cycles in both modes; in a long run of them each adds max(T, u).
The fr partial sums of an output (ws, is) are added at the bottom edge, in the cycle in which they leave.
"""

from simulator.array import dataflow_kernels as kernels
from sram.errors import InputError

CODES = {"os": kernels.OS, "ws": kernels.WS, "is": kernels.IS}
NAMES = {code: name for name, code in CODES.items()} | {kernels.RS: "rs"}


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
) -> int:
    """Cycles of a product (m x k) @ (k x n) when no operand ever comes late.

    >>> gemm_cycles("os", 32, 100, 64, 32, 32) == 2 * fold_cycles("os", 32, 32, 100, 32, 32)
    True
    >>> gemm_cycles("ws", 100, 64, 32, 32, 32, overlap=True)  # load 32, stream 2 x 100, cross the array
    294
    """
    return kernels.gemm_cycles(code(dataflow), 1, m, k, n, rows, cols, overlap, skip_idle_rows)


def _check(used: int, available: int, key: str) -> None:
    if not 1 <= used <= available:
        raise InputError("fold", key, used, f"1 to {available}, what the array has")
