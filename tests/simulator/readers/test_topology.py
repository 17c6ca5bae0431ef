"""Are SCALE-Sim's files read as its users write them, and refused with a line number where they are wrong?"""

import pytest

from simulator.accelerator import SCALESIM_KEYS, SCALESIM_SWITCHES, scalesim_config
from simulator.readers.read import load
from sram.errors import InputError

HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"


def write(tmp_path, text):
    path = tmp_path / "net.csv"
    path.write_text(text)
    return path


def test_convolutions(tmp_path):
    text = HEADER + "Conv1, 224, 224, 7, 7, 3, 64, 2,\n\n , , ,\nFC , 1, 1, 1, 1, 512, 1000, 1\n"
    first, last = load(write(tmp_path, text)).layers
    assert (first.name, first.in_h, first.kernel_h, first.stride_h, first.k, first.n) == ("Conv1", 224, 7, 2, 147, 64)
    assert first.out_h == 109  # (224 - 7) // 2 + 1
    assert (last.name, last.macs) == ("FC", 512000)


@pytest.mark.parametrize("header", ["Layer, M, N, K,\n", "", "\ufeffLayer,M,N,K\n\n"])
@pytest.mark.parametrize("end", ["", ",", ", 1:1,", ",,,"])
def test_matrix_products(tmp_path, header, end):
    (layer,) = load(write(tmp_path, f"{header}qk, 197, 196, 64{end}\n")).layers
    assert (layer.kind, layer.m, layer.n, layer.k) == ("linear", 197, 196, 64)
    assert (layer.in_h, layer.in_w, layer.in_channels) == (197, 1, 64)


def test_batched_products_and_depthwise_rows(tmp_path):
    assert load(write(tmp_path, "qk, 10, 20, 30, 6,\n")).macs == 6 * 6000
    layers = load(write(tmp_path, HEADER + "DP1, 8, 8, 3, 3, 4, 1, 1,\n")).layers
    assert [layer.name for layer in layers] == [f"DP1Channel_{i}" for i in range(4)]
    assert {layer.in_channels for layer in layers} == {1}


def test_lines_with_one_name_are_layers_of_their_own(tmp_path):
    workload = load(write(tmp_path, "a, 2, 3, 4,\na, 2, 3, 4,\n"))
    assert [layer.name for layer in workload.layers] == ["a", "a#2"]
    assert workload.weights == 24


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c, 8, 8, 3, 3, 4, x, 1,", "line 3: column 7 = 'x'"),
        ("c, 8, 8, 3, 3, 4, 0, 1,", "line 3: column 7 = '0'"),
        ("c, 8, 8, 3, 3, 4, , 1,", "line 3: column 7 = ''"),
        ("c, 8, 8, 3, 3, 4, -2, 1,", "line 3: column 7"),
        ("c, 8, 8, 3, 3, 4, 2,", "line 3: number of values = 6"),
        ("c, 8, 8, 3, 3, 4, 2, 1, 1, 5", "line 3: number of values = 9"),
        ("c, 2, 8, 3, 3, 4, 2, 1,", "line 3: filter = '3x3'"),
        ("c, 8, 8, 3, 3, 4, 2, 1, 2:4,", "line 3: sparsity = '2:4'"),
        ("c, 8, 8, 4,", "line 3: columns"),
        ("c, 8, 8, 3, 3, 4, ², 1,", "line 3: column 7 = '²' is not allowed; allowed: a whole number"),
        ("c, 8, 8, 3, 3, 4, ٣, 1,", "line 3: column 7 = '٣'"),
        ("c, 8, 8, 3, 3, 4, 2, 1, ²:²,", "line 3: sparsity = '²:²'"),
        (
            "c, 8, 8, 3, 3, 4, 99999999999999999999, 1,",
            "99' is not allowed; allowed: a whole number from 1 to 16777216",
        ),
        pytest.param(f"c, 8, 8, 3, 3, 4, {'9' * 5000}, 1,", "line 3: column 7 = '9999", id="5000 digits"),
        pytest.param(f"c, 8, {'9' * 131073}", "line 3: content = 'field larger than field limit", id="too large"),
        ("c, 16777216, 16777216, 3, 3, 4, 2, 1,", "line 3: ifmap = '16777216x16777216'"),
        ("c, 8192, 8192, 32, 32, 16777216, 16777216, 1,", "line 3: multiplications = "),
        ("DP, 8, 8, 3, 3, 16777216, 1, 1,", "line 3: channels = 16777216"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(InputError) as error:
        load(write(tmp_path, HEADER + "ok, 8, 8, 3, 3, 4, 2, 1,\n" + row + "\n"))
    assert message in str(error.value)


def test_a_first_row_of_strange_digits_is_no_header(tmp_path):
    with pytest.raises(InputError, match="line 1: column 2 = '²'"):
        load(write(tmp_path, "qk, ², ², ²,\nav, 2, 2, 2,\n"))


def test_a_batch_of_large_products_is_refused(tmp_path):
    assert load(write(tmp_path, "qk, 16777216, 16777216, 16,\n")).macs == 1 << 52
    with pytest.raises(InputError, match="line 1: multiplications = 18014398509481984"):
        load(write(tmp_path, "qk, 16777216, 16777216, 16, 4,\n"))


@pytest.mark.parametrize("text", ["", "\n\n", HEADER])
def test_a_file_without_layers_is_refused(tmp_path, text):
    with pytest.raises(InputError, match="no layer"):
        load(write(tmp_path, text))


CONFIG = """[general]
run_name = GoogleTPU_v1_ws

[architecture_presets]
ArrayHeight:    256
ArrayWidth:     128
IfmapSramSzkB:    6144
FilterSramSzkB:   1024
OfmapSramSzkB:    2048
IfmapOffset:    0
Dataflow : ws
Bandwidth : 10

[sparsity]
SparsitySupport : false

[run_presets]
InterfaceBandwidth: USER
"""


def test_configuration(tmp_path):
    path = tmp_path / "google.cfg"
    path.write_text(CONFIG)
    machine = scalesim_config(path, user_bandwidth=True)
    assert (machine.name, machine.array_rows, machine.array_cols) == ("GoogleTPU_v1_ws", 256, 128)
    assert (machine.dataflow, machine.dram_bytes_per_cycle) == ("ws", 30)
    buffers = (machine.ifmap_buffer, machine.weight_buffer, machine.ofmap_buffer)
    assert [buffer.capacity_bytes // 1024 for buffer in buffers] == [6144, 1024, 2048]


def test_stalls_of_user_bandwidth_are_refused_where_scalesim_is_followed(tmp_path):
    path = tmp_path / "google.cfg"
    path.write_text(CONFIG)
    with pytest.raises(
        InputError, match="InterfaceBandwidth = 'USER' is not allowed; allowed: CALC; USER without --compat"
    ):
        scalesim_config(path)
    path.write_text(CONFIG.replace("USER", "CALC"))
    assert scalesim_config(path, user_bandwidth=True) == scalesim_config(path)


def test_every_key_of_a_configuration_is_honoured_or_refused(tmp_path):
    """One that counts changes the machine, a switch is refused when on, the others are known to change nothing."""
    path = tmp_path / "all.cfg"
    honoured = {
        "run_name",
        "ArrayHeight",
        "ArrayWidth",
        "IfmapSramSzkB",
        "FilterSramSzkB",
        "OfmapSramSzkB",
        "Bandwidth",
    }
    values = dict.fromkeys((key for keys in SCALESIM_KEYS.values() for key in keys), "8")
    values |= {"Dataflow": "ws", "InterfaceBandwidth": "USER", "TopologyCsvLoc": '"a.csv"', "Bandwidth": "9"}
    values |= dict.fromkeys(SCALESIM_SWITCHES, "False")

    def machine(**changed):
        said = values | changed
        lines = [f"[{s}]\n" + "".join(f"{key} = {said[key]}\n" for key in keys) for s, keys in SCALESIM_KEYS.items()]
        path.write_text("".join(lines))
        return scalesim_config(path, user_bandwidth=True)

    base = machine()
    assert machine(Dataflow="os") != base != machine(InterfaceBandwidth="CALC")
    for key in values.keys() - {"Dataflow", "InterfaceBandwidth"}:
        if key in SCALESIM_SWITCHES:
            with pytest.raises(InputError, match=f"{key} = 'True' is not allowed; allowed: false; "):
                machine(**{key: "True"})
        else:
            assert (machine(**{key: "16"}) != base) == (key in honoured), key


def test_a_percent_sign_in_a_configuration_is_itself(tmp_path):
    path = tmp_path / "google.cfg"
    path.write_text(CONFIG.replace("GoogleTPU_v1_ws", "100% %(here)s"))
    assert scalesim_config(path, user_bandwidth=True).name == "100% %(here)s"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ArrayWidth:     128\n", "", "ArrayWidth = None"),
        ("256", "many", "ArrayHeight = 'many'"),
        ("Dataflow : ws", "Dataflow : rs", "allowed: os, ws, is"),
        ("SparsitySupport : false", "SparsitySupport : true", "SparsitySupport"),
        ("SparsitySupport : false", "SparsitySupport : maybe", "SparsitySupport = 'maybe'"),
        ("IfmapOffset", "IfmapOfset", "[architecture_presets] key = 'ifmapofset' is not allowed; allowed: ArrayHeight"),
        ("[sparsity]", "[spars]", "section = 'spars' is not allowed; allowed: general, architecture_presets"),
        ("USER", "MAYBE", "allowed: CALC, USER"),
        ("[general]", "general", "a SCALE-Sim .cfg"),
        ("256", "²", "ArrayHeight = '²' is not allowed; allowed: a whole number from 1 to 65536"),
        ("256", "99999999999999999999", "ArrayHeight = '99999999999999999999'"),
        pytest.param("256", "9" * 5000, "ArrayHeight = '9999", id="5000 digits"),
        ("6144", "99999999999999999999", "IfmapSramSzkB = '9999"),
        ("Bandwidth : 10", "Bandwidth : ²", "Bandwidth = '²'"),
        ("Bandwidth : 10", "Bandwidth : 99999999999999999999", "Bandwidth = '9999"),
    ],
)
def test_a_bad_configuration_is_refused(tmp_path, old, new, message):
    path = tmp_path / "bad.cfg"
    path.write_text(CONFIG.replace(old, new))
    with pytest.raises(InputError) as error:
        scalesim_config(path, user_bandwidth=True)
    assert message in str(error.value)
