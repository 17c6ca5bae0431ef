"""Are cycles, accesses and traffic what one counts by hand, and do they obey the laws of any memory?"""

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.accelerator import Buffer, accelerator
from simulator.array import cycles_kernels, memory_kernels
from simulator.array.cycles import simulate
from simulator.array.dataflow import CODES, spatial
from simulator.array.dataflow_kernels import gemm_cycles
from simulator.array.memory import in_dram, rows_under, touched, window_of
from simulator.array.shapes import machine_record, shapes_of
from simulator.readers.read import trace
from simulator.workload import Layer, Workload, conv, linear, matmul

PAPER = accelerator("paper")
READS = ("ifmap_dram_read_bytes", "filter_dram_read_bytes", "psum_dram_read_bytes")
TRAFFIC = (*READS, "psum_dram_write_bytes", "ofmap_dram_write_bytes")
BIG = Buffer(2**40)


def only(layer, machine):
    return simulate(Workload("one", (layer,)), machine).layers[0]


@st.composite
def layers(draw):
    kind = draw(st.sampled_from(["conv", "conv", "conv", "linear", "matmul"]))
    batch = draw(st.integers(1, 3))
    if kind == "linear":
        return linear("l", draw(st.integers(1, 20)), draw(st.integers(1, 90)), draw(st.integers(1, 90)), batch=batch)
    if kind == "matmul":
        return matmul("l", *(draw(st.integers(1, 40)) for _ in range(3)), groups=draw(st.integers(1, 3)), batch=batch)
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    return conv(
        "l",
        draw(st.integers(8, 20)),
        draw(st.integers(8, 20)),
        groups * draw(st.integers(1, 8)),
        groups * draw(st.integers(1, 20)),
        kernel,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(0, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        transposed=draw(st.booleans()),
        batch=batch,
    )


@st.composite
def machines(draw):
    buffers = [Buffer(draw(st.integers(1, 40_000)), double=draw(st.booleans())) for _ in range(3)]
    return replace(
        PAPER,
        array_rows=draw(st.integers(1, 20)),
        array_cols=draw(st.integers(1, 20)),
        dataflow=draw(st.sampled_from(["os", "ws", "is"])),
        ifmap_buffer=buffers[0],
        weight_buffer=buffers[1],
        ofmap_buffer=buffers[2],
        dram_bytes_per_cycle=draw(st.sampled_from([0.3, 1.0, 4.0, 16.0, 1000.0])),
        dram_latency_cycles=draw(st.sampled_from([0, 10, 200])),
        double_buffered_registers=draw(st.booleans()),
        skip_idle_rows=draw(st.booleans()),
    )


# --- hand-worked ---------------------------------------------------------------------------------------------------


def test_a_small_convolution_by_hand():
    # 4x4x2 input, padding 1, 3x3, 3 filters: m = 16, k = 18, n = 3. Array 4 x 2: os has fr = 4, fc = 2, T = 18.
    layer = conv("c", 4, 4, 2, 3, 3, padding=1)
    machine = replace(PAPER, array_rows=4, array_cols=2, dram_bytes_per_cycle=float("inf"), dram_latency_cycles=0)
    got = only(layer, machine)
    assert got["macs"] == 16 * 18 * 3
    assert got["cycles"] == 8 * (2 * 4 + 2 + 18 - 2)
    assert got["stall_cycles"] == 0
    # taps inside the image: 2 + 3 + 3 + 2 = 10 along each side, so 10 * 10 * 2 channels, in each of 2 columns of folds
    assert got["ifmap_sram_reads"] == 2 * 200
    assert got["filter_sram_reads"] == 4 * 18 * 3
    assert got["ofmap_sram_writes"] == 48
    assert got["psum_sram_writes"] == 0
    assert [got[name] for name in TRAFFIC] == [32, 54, 0, 0, 48]
    # ws: 18 taps on 4 rows: fr = 5, T = 16
    got = only(layer, replace(machine, dataflow="ws"))
    assert got["cycles"] == 10 * (2 * 4 + 2 + 16 - 2)
    assert (got["filter_sram_reads"], got["ifmap_sram_reads"]) == (54, 400)
    assert (got["psum_sram_writes"], got["psum_sram_reads"], got["ofmap_sram_writes"]) == (4 * 48, 4 * 48, 48)
    # is: pixels on columns: fr = 5, fc = 8, T = 3
    got = only(layer, replace(machine, dataflow="is"))
    assert got["cycles"] == 40 * (2 * 4 + 2 + 3 - 2)
    assert (got["filter_sram_reads"], got["ifmap_sram_reads"]) == (8 * 54, 200)


@pytest.mark.parametrize(("ifmap", "weight", "ofmap"), [(8, 8, 8), (16, 4, 32)])
def test_ports_count_elements_and_dram_bytes_of_every_width(ifmap, weight, ofmap):
    """The 4x4x2 input, 54 weights and 48 outputs of the convolution above, each moved once."""
    machine = replace(PAPER, ifmap_bits=ifmap, weight_bits=weight, ofmap_bits=ofmap)
    got = only(conv("c", 4, 4, 2, 3, 3, padding=1), machine)
    assert [got[f"{name}_sram_writes"] for name in ("ifmap", "filter", "ofmap")] == [32, 54, 48]
    assert got["ofmap_sram_reads"] == 48
    assert got["ifmap_dram_read_bytes"] == 32 * ifmap / 8
    assert got["filter_dram_read_bytes"] == 54 * weight / 8
    assert got["ofmap_dram_write_bytes"] == 48 * ofmap / 8


def test_cold_start_and_last_write_by_hand():
    # One fold: 2 x 2 outputs, T = 4, os on 2 x 2; 8 + 8 bytes in at 2 bytes a cycle, latency 5; 4 bytes out.
    machine = replace(PAPER, array_rows=2, array_cols=2, dram_bytes_per_cycle=2.0, dram_latency_cycles=5)
    got = only(linear("l", 2, 4, 2), machine)
    # Two chunks of two taps, 4 + 4 bytes each: the first is there after 4 cycles of the channel and 5 of latency, the
    # second after 8 and 5, which is 11 cycles after its turn in the array's own time, 2. The 4 bytes out take 2 more.
    assert got["array_cycles"] == 4 + 2 * 2 + 2 - 2
    assert got["cycles"] == 11 + 8 + 4 / 2


def test_weights_are_shared_by_a_batch_and_not_by_groups():
    one = only(linear("l", 1, 64, 64), PAPER)
    many = only(linear("l", 1, 64, 64, batch=32), PAPER)
    assert many["array_cycles"] == one["array_cycles"]  # 32 samples fill the rows that one sample left idle
    assert many["filter_sram_reads"] == one["filter_sram_reads"]
    depthwise = only(conv("d", 8, 8, 6, 6, 3, groups=6, padding=1), PAPER)
    single = only(conv("d", 8, 8, 1, 1, 3, padding=1), PAPER)
    assert depthwise["array_cycles"] == 6 * single["array_cycles"]


def test_paper_convention_of_weight_memory_accesses():
    layer = conv("c", 16, 16, 64, 128, 3, padding=1)
    reads = simulate(Workload("w", (layer,)), PAPER).weight_word_reads()
    assert reads[0] == 576 * 128 * 8 / 8  # k n ceil(256 / 32) int8 weights, eight to a 64-bit word


# --- laws ----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(layers(), machines())
def test_nothing_is_lost_and_nothing_beats_the_peak(layer, machine):
    got = only(layer, machine)
    assert got["macs"] == layer.macs
    assert got["cycles"] == got["array_cycles"] + got["stall_cycles"]
    assert got["stall_cycles"] >= 0
    assert 0 < got["utilization"] <= 1
    assert 0 < got["mapping_efficiency"] <= 1
    moved = sum(int(got[name]) for name in TRAFFIC)
    assert got["cycles"] >= int((moved - 5) / machine.dram_bytes_per_cycle)  # each operand's bytes are rounded up
    # what is touched comes in at least once, and all outputs leave
    _, pixels, _, _ = touched(window_of(layer), machine.array_rows)
    footprint = pixels * layer.batch * layer.groups * (layer.k // (window_of(layer)[2] * window_of(layer)[3]))
    assert got["ifmap_dram_read_bytes"] >= footprint
    assert got["filter_dram_read_bytes"] >= layer.filter_elements * (layer.batch if layer.kind == "matmul" else 1)
    assert got["ofmap_dram_write_bytes"] == layer.batch * layer.ofmap_elements
    everything = only(layer, replace(machine, ifmap_buffer=BIG, weight_buffer=BIG, ofmap_buffer=BIG))
    assert everything["ifmap_dram_read_bytes"] == footprint
    assert everything["filter_dram_read_bytes"] == layer.filter_elements * (
        layer.batch if layer.kind == "matmul" else 1
    )
    assert everything["psum_dram_read_bytes"] == everything["psum_dram_write_bytes"] == 0
    # the array asks the buffers for no less than DRAM brought first, and never reads a padded zero
    assert got["ifmap_sram_reads"] >= footprint
    assert got["psum_sram_reads"] == got["psum_sram_writes"]


@settings(max_examples=150, deadline=None)
@given(layers(), machines(), st.floats(0.01, 0.99), st.integers(0, 3))
def test_less_memory_or_bandwidth_never_helps(layer, machine, factor, what):
    name = ("ifmap_buffer", "weight_buffer", "ofmap_buffer", "dram_bytes_per_cycle")[what]
    value = getattr(machine, name)
    if what < 3:
        poorer = replace(machine, **{name: replace(value, capacity_bytes=max(1, int(value.capacity_bytes * factor)))})
    else:
        poorer = replace(machine, dram_bytes_per_cycle=value * factor)
    rich, poor = only(layer, machine), only(layer, poorer)
    assert poor["cycles"] >= rich["cycles"]
    for name in TRAFFIC:
        assert poor[name] >= rich[name]


@settings(max_examples=60, deadline=None)
@given(layers(), machines())
def test_latency_never_helps(layer, machine):
    assert only(layer, machine)["cycles"] <= only(layer, replace(machine, dram_latency_cycles=300))["cycles"]


# --- traffic -------------------------------------------------------------------------------------------------------


def im2col(layer):
    """[m, k] input words in torch order of taps (channel, row, column), -1 in the padding; one sample, one group."""
    l, out = layer, []
    for y in range(l.out_h):
        for x in range(l.out_w):
            taps = []
            for c in range(l.in_channels // l.groups):
                for r in range(l.kernel_h):
                    for s in range(l.kernel_w):
                        iy = y * l.stride_h - l.padding_top + r * l.dilation_h
                        ix = x * l.stride_w - l.padding_left + s * l.dilation_w
                        inside = 0 <= iy < l.in_h and 0 <= ix < l.in_w
                        taps.append((c * l.in_h + iy) * l.in_w + ix if inside else -1)
            out.append(taps)
    return np.array(out)


def words(block):
    return len(set(block.ravel().tolist()) - {-1})


convs = st.builds(
    lambda h, w, c, f, kernel, stride, padding, dilation: conv("c", h, w, c, f, kernel, stride, padding, dilation),
    *(st.integers(7, 12), st.integers(7, 12), st.integers(1, 4), st.integers(1, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
)


@settings(max_examples=60, deadline=None)
@given(convs, st.integers(1, 9), st.integers(1, 9))
def test_reuse_tiers_equal_sets_of_words(layer, rows, cols):
    """With room for nothing, one tile, the rows under the kernel, everything: DRAM reads are those of explicit sets."""
    a = im2col(layer)
    valid, everything = int((a >= 0).sum()), words(a)
    columns = -(-layer.n // cols)  # sweeps of os and ws over the input

    def reads(dataflow, room):
        machine = replace(PAPER, dataflow=dataflow, array_rows=rows, array_cols=cols)
        machine = replace(machine, ifmap_buffer=Buffer(max(1, room), double=False))
        return int(only(layer, machine)["ifmap_dram_read_bytes"])

    row_tiles = [words(a[p : p + rows]) for p in range(0, layer.m, rows)]
    window = min(layer.in_channels * rows_under(window_of(layer), rows), everything)
    if max(row_tiles) < window:  # a tile stays while it is used, and nothing else does
        assert reads("os", max(row_tiles)) == columns * sum(row_tiles)
    assert reads("os", 10**6) == everything
    if max(row_tiles) < window < everything:  # the halo stays: one sweep brings each word once
        assert reads("os", window) == columns * everything
    slices = sum(words(a[:, t : t + rows]) for t in range(0, layer.k, rows))
    most = max(-(-min(rows, layer.k) // (layer.kernel_h * layer.kernel_w)) + 1, 1)
    if most * rows_under(window_of(layer), rows) < everything:
        room = most * rows_under(window_of(layer), rows)
        assert slices <= valid
        assert everything <= reads("ws", room) <= columns * valid
    tiles = [words(a[p : p + cols, t : t + rows]) for p in range(0, layer.m, cols) for t in range(0, layer.k, rows)]
    assert everything <= sum(tiles) <= valid
    assert everything <= reads("is", max(tiles)) <= valid
    for dataflow, sweeps in (("os", columns), ("ws", columns), ("is", 1)):
        assert everything <= reads(dataflow, 1) <= sweeps * valid


# --- closed form and stepped engine ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(layers(), machines())
def test_the_stepped_schedule_ends_when_the_closed_form_says(layer, machine):
    """Without DRAM in the way the last result leaves when gemm_cycles says; chunks come in order and lose no byte."""
    shape, a = shapes_of(Workload("w", (layer,)), machine)[0], machine_record(machine)[0]
    sr, sc, t = spatial(machine.dataflow, int(shape["m"]), layer.k, layer.n)
    fr, fc = -(-sr // machine.array_rows), -(-sc // machine.array_cols)
    code = CODES[machine.dataflow]
    moved = cycles_kernels.traffic(shape, a, code, fr, fc)
    start, length, bytes_in, result, bytes_out = cycles_kernels.schedule(shape, a, code, fr, fc, moved)
    closed = gemm_cycles(
        code,
        *(int(shape[name]) for name in ("products", "m", "k", "n")),
        machine.array_rows,
        machine.array_cols,
        machine.double_buffered_registers,
        machine.skip_idle_rows,
    )
    assert result.max() == closed
    assert (np.diff(start) >= 0).all()
    assert (np.diff(result) >= 0).all()
    assert length.sum() >= layer.groups * fr * fc * t
    # the folds together move what the closed form of the traffic says
    ifmap, ifmap_later, filters, filter_later, spill, outputs = (float(x) for x in moved)
    products = int(shape["products"])
    assert bytes_in.sum() == pytest.approx(products * (ifmap + ifmap_later + filters + filter_later + spill))
    assert bytes_out.sum() == pytest.approx(products * (spill + outputs))
    # an ideal DRAM never holds the array up
    still, written = memory_kernels.run(start, length, bytes_in, result, bytes_out, np.inf, 0, 2)
    assert still == 0
    assert written <= closed


def slow_run(start, length, cycles_in, result, cycles_out, latency, depth):
    """The same machine cycle by cycle: a channel with one transfer at a time, an array whose clock may stop."""
    queue = memory_kernels.QUEUE
    order, w = [], 0
    for q in range(len(start)):
        while w < len(result) and q >= queue and result[w] <= start[q - queue]:
            order.append(("write", w))
            w += 1
        order.append(("read", q))
    order += [("write", i) for i in range(w, len(result))]
    order = [(kind, i) for kind, i in order if (cycles_in[i] if kind == "read" else cycles_out[i]) > 0]
    ready = {q: 0 for q in range(len(start)) if cycles_in[q] == 0}
    used_up, complete = {}, {}
    clock, now, busy_until, last_write = 0, 0, 0, 0
    end = max(result)
    while clock < end or order:
        # chunks whose last operand has entered, results that have left, by the array's clock
        for q in range(len(start)):
            if not (q in ready and ready[q] <= now):  # chunks are used in order: none behind one that is late
                break
            if q not in used_up and clock >= start[q] + length[q]:
                used_up[q] = now
        for r in range(len(result)):
            if r not in complete and clock >= result[r]:
                complete[r] = now
        while order and busy_until <= now:
            kind, i = order[0]
            if kind == "read" and i >= depth and i - depth not in used_up:
                break
            if kind == "write" and i not in complete:
                break
            order.pop(0)
            busy_until = now + (cycles_in[i] if kind == "read" else cycles_out[i])
            if kind == "read":
                ready[i] = busy_until + latency
            else:
                last_write = busy_until
            break
        late = any(start[q] <= clock and not (q in ready and ready[q] <= now) for q in range(len(start)))
        clock += not late
        now += 1
        assert now < 5_000
    return now, last_write, clock


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_stalls_equal_a_cycle_by_cycle_memory(data):
    draw = data.draw
    chunks = draw(st.integers(1, 40))
    length = np.array([draw(st.integers(0, 6)) for _ in range(chunks)])
    overlap = draw(st.booleans())  # loads overlap the chunk before them
    start = np.zeros(chunks, int)
    for q in range(1, chunks):
        free = max(start[q - 1], start[q - 2] + length[q - 2]) if overlap else start[q - 1] + length[q - 1]
        start[q] = free + draw(st.integers(0, 4))
    cycles_in = np.array([draw(st.integers(0, 8)) for _ in range(chunks)])
    results = draw(st.integers(1, 6))
    result = np.sort([draw(st.integers(1, int((start + length).max()) + 1)) for _ in range(results)])
    result[-1] = (start + length).max() + draw(st.integers(1, 9))
    cycles_out = np.array([draw(st.integers(0, 8)) for _ in range(results)])
    latency, depth = draw(st.integers(0, 12)), draw(st.integers(2 if overlap else 1, 5))
    still, written = memory_kernels.run(
        start, length, cycles_in.astype(float), result, cycles_out.astype(float), 1.0, latency, depth
    )
    now, last_write, _ = slow_run(start, length, cycles_in, result, cycles_out, latency, depth)
    assert max(result[-1] + still, written) == max(now, last_write)


def test_a_chunk_without_a_cycle_waits_for_those_before_it():
    """Three chunks at cycle 0, the second of no bytes: the third is fetched when the first has come, not before."""
    given = np.zeros(3, int), np.zeros(3, int), np.array([1, 0, 1]), np.array([1]), np.array([0])
    start, length, cycles_in, result, cycles_out = given
    floats = cycles_in.astype(float), result, cycles_out.astype(float)
    still, _ = memory_kernels.run(start, length, *floats, 1.0, 1, 1)
    assert still == 4  # 1 + 1 of latency, and again
    assert slow_run(*given, 1, 1)[0] == result[-1] + still


# --- between layers ------------------------------------------------------------------------------------------------


def chain():
    """conv - relu - conv, and an addition that reads the first relu again."""
    relu = Layer("relu", "activation", operations=512, elements_read=512, elements_written=512, sources=(0,))
    add = Layer("add", "elementwise", operations=512, elements_read=1024, elements_written=512, sources=(1, 2))
    return Workload(
        "chain",
        (
            conv("a", 8, 8, 3, 8, 3, padding=1, sources=(-1,)),
            relu,
            conv("b", 8, 8, 8, 8, 3, padding=1, sources=(1,)),
            add,
        ),
    )


def test_a_vector_layer_takes_its_input_as_it_leaves_the_array():
    assert in_dram(chain(), PAPER) == [False, True, False, True]
    rows = simulate(chain(), PAPER).layers
    assert rows["ofmap_dram_write_bytes"].tolist() == [0, 512, 0, 512]
    assert rows["ifmap_dram_read_bytes"].tolist() == [192, 0, 512, 512]  # the addition reads the relu's output again


def test_what_is_handed_on_passes_no_buffer():
    rows = simulate(chain(), PAPER).layers
    assert rows["ofmap_sram_writes"].tolist() == rows["ofmap_sram_reads"].tolist() == [0, 512, 0, 512]
    # the addition takes the second convolution's output as it leaves, and reads the relu's from its buffer
    assert rows["ifmap_sram_reads"][[1, 3]].tolist() == [0, 512]


def test_an_output_that_leaves_the_network_is_written_whoever_reads_it_too():
    net = replace(chain(), outputs=(0, 3))
    assert in_dram(net, PAPER) == [True, True, False, True]
    on_chip = replace(PAPER, keep_on_chip=True, ofmap_buffer=Buffer(1 << 20))
    assert in_dram(net, on_chip) == [True, False, False, True]
    rows = simulate(net, on_chip).layers
    assert rows["ofmap_dram_write_bytes"].tolist() == [512, 0, 0, 512]
    assert rows["ofmap_sram_writes"].tolist() == [512, 512, 0, 512]
    assert rows["ifmap_dram_read_bytes"].tolist() == [192, 512, 0, 0]


def mixed(last):
    """`last` reads an output that went to DRAM, because it lived beside a large one, and one that stayed on chip."""
    first = conv("early", 16, 16, 3, 4, 1, sources=(-1,)), conv("large", 16, 16, 4, 64, 1, sources=(0,))
    then = conv("between", 16, 16, 64, 4, 1, sources=(1,)), conv("late", 16, 16, 4, 16, 1, sources=(2,))
    return Workload("mixed", (*first, *then, last))


def test_each_operand_comes_from_where_its_layer_left_it():
    machine = replace(PAPER, keep_on_chip=True, ofmap_buffer=Buffer(16384))
    sizes = dict(operations=768, elements_read=1536, elements_written=768, sources=(-1, 3))
    for last, ifmap, filters in (
        (conv("concatenation", 16, 16, 20, 8, 1, sources=(0, 3)), 1024, 160),
        # the late one is the first operand
        (matmul("product", 16, 256, 4, sources=(0, 3), operands=(((3,), 4096), ((0,), 1024))), 0, 1024),
        (matmul("turned", 4, 256, 16, sources=(0, 3), operands=(((0,), 1024), ((3,), 4096))), 1024, 0),
        # a slice of the late one, and all of the network's input
        (Layer("sum", "elementwise", **sizes, operands=(((3,), 768), ((-1,), 768))), 768, 0),
    ):
        net = mixed(last)
        assert in_dram(net, machine)[:4] == [True, True, True, False]
        row = simulate(net, machine).layers[4]
        assert (row["ifmap_dram_read_bytes"], row["filter_dram_read_bytes"]) == (ifmap, filters)


def test_what_stays_on_chip_is_neither_written_nor_read_and_needs_room_for_all_that_lives():
    def traffic(capacity):
        rows = simulate(chain(), replace(PAPER, keep_on_chip=True, ofmap_buffer=Buffer(capacity))).layers
        return rows["ofmap_dram_write_bytes"].tolist(), rows["ifmap_dram_read_bytes"].tolist()

    # the relu's output and the result of the addition live together: 1024 bytes, half of 2048
    assert traffic(2048) == ([0, 0, 0, 512], [192, 0, 0, 0])
    assert traffic(2047) == ([0, 512, 0, 512], [192, 0, 512, 512])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.floats(0.05, 1.0))
def test_less_room_for_tensors_never_lowers_traffic(capacity, factor):
    def moved(room):
        rows = simulate(chain(), replace(PAPER, keep_on_chip=True, ofmap_buffer=Buffer(room))).layers
        return sum(int(rows[name].sum()) for name in TRAFFIC)

    assert moved(max(1, int(capacity * factor))) >= moved(capacity)


def test_frame_has_a_totals_row_that_adds_up():
    frame = simulate(chain(), PAPER).frame()
    assert frame["layer"].tolist() == ["a", "relu", "b", "add", "total"]
    counts = [name for name in frame.columns if name.endswith(("_bytes", "_elements", "cycles", "macs"))]
    assert len(counts) > 14
    assert (frame[counts].iloc[:-1].sum() == frame[counts].iloc[-1]).all()
    assert frame["utilization_pct"].iloc[-1] <= 100


def test_numbers_for_each_pixel_are_read_from_the_weight_memory():
    """A scale and an offset for 3 x 32 x 32 pixels: 6,144 bytes, 768 words of 64 bits, read once an inference."""
    from neuralfuse.transforms import generators

    transform = generators.NeuralFuse(generators.build("affine", 3, size=(32, 32)))
    counts = simulate(trace(transform, (3, 32, 32)), accelerator("paper"))
    assert [layer.constants for layer in counts.workload.layers] == [3072, 3072, 0, 0]  # scale, offset, sum, clip
    assert counts.weight_word_reads().sum() == 768
    assert counts.layers["filter_sram_writes"].sum() == counts.layers["filter_dram_read_bytes"].sum() == 6144
    assert counts.layers["vector_operations"].sum() == 4 * 3072
    channels = generators.NeuralFuse(generators.build("channel_affine", 3, size=(32, 32)))
    assert simulate(trace(channels, (3, 32, 32)), accelerator("paper")).layers["filter_sram_reads"].sum() == 6


@pytest.mark.parametrize(("room", "traffic"), [(-5, 400), (0, 400), (25, 325), (99, 103), (100, 100), (150, 100)])
def test_room_for_a_part_saves_its_part(room, traffic):
    """A quarter of the room for an operand that would save 300 of 400 bytes pins a quarter of it."""
    assert memory_kernels.kept(room, 100, 400, 300) == traffic


def test_between_two_tiers_the_room_above_the_lower_pins_a_part_of_what_the_upper_keeps():
    tiers = functools.partial(memory_kernels.tiers, need1=100, need2=200, need3=400)
    traffic = dict(traffic0=1000, traffic1=700, traffic2=500, traffic3=100)
    by_hand = {0: 1000, 50: 850, 100: 700, 150: 700 - 200 * 50 / 200, 200: 500, 300: 500 - 400 * 100 / 400, 400: 100}
    assert {room: tiers(room, **traffic) for room in by_hand} == by_hand
