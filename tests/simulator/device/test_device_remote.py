"""The way to a device: frames, secrets, limits, and everything that can go wrong between two machines."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.device import frames, open_device
from simulator.device.program import MOST_STEPS, Conv, Flatten, Program
from simulator.device.protocol import (
    VERSION,
    Counters,
    DeviceError,
    DeviceTimeout,
    LinkLost,
    Refused,
    Run,
    VersionMismatch,
)
from simulator.device.remote import RemoteDevice
from simulator.device.serve import Server, proof
from sram.errors import InputError
from tests.conftest import ROOT
from tests.device_boards import Broken, Plain

SECRET = "correct horse battery"


@contextlib.contextmanager
def serving(board, **options):
    server = Server(board, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"127.0.0.1:{server.address[1]}"
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def process(driver, **environment):
    """A server process of tests/device_boards.py; yields (process, address)."""
    command = [sys.executable, "-m", "simulator.device.serve", f"tests.device_boards:{driver}", "--port", "0"]
    paths = str(ROOT)
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        try:
            yield running, running.stdout.readline().split()[-1]
        finally:
            running.kill()


def raw(address):
    """A plain connection that has read the server's greeting."""
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    greeting = read_frame(connection)
    assert greeting["hello"] == "neuralfuse-device"
    return connection, greeting


def read_frame(connection):
    prefix = connection.recv(12, socket.MSG_WAITALL)
    if len(prefix) < 12:
        return None
    _, header_bytes, array_bytes = struct.unpack("<4sII", prefix)
    header = json.loads(connection.recv(header_bytes, socket.MSG_WAITALL))
    if array_bytes:
        connection.recv(array_bytes, socket.MSG_WAITALL)
    return header


def frame(header, array=b"", magic=b"NFD1"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<4sII", magic, len(text), len(array)) + text + array


HELLO = frame({"call": "hello", "protocol": VERSION, "nonce": "n"})
READ = frame({"call": "read", "address": 0, "count": 1})


def unserved(connection):
    """Whether a read on this connection gets no answer: it is shut, not only told no."""
    try:
        connection.sendall(READ)
        return read_frame(connection) is None
    except OSError:
        return True


def greeted(address):
    connection, _ = raw(address)
    connection.sendall(HELLO)
    assert "memories" in read_frame(connection)
    return connection


# Frames.


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda key: key != "array"), st.integers() | st.text(), max_size=5),
    st.sampled_from(["<u8", "<f4"]),
    st.lists(st.integers(0, 5), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_frames_come_out_as_they_went_in(header, dtype, shape):
    array = np.random.default_rng(0).integers(0, 1 << 20, shape).astype(dtype)
    left, right = socket.socketpair()
    sender, receiver = frames.Link(left), frames.Link(right)
    sender.send(header, array, timeout_s=5)
    got, out = receiver.receive(timeout_s=5)
    assert got == header
    assert out.dtype == array.dtype
    assert out.shape == array.shape
    assert (out == array).all()
    sender.close()
    with pytest.raises(frames.LinkClosed):
        receiver.receive(timeout_s=5)
    receiver.close()


@given(st.binary(max_size=60), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_any_header_is_read_or_refused(text, array_bytes):
    with contextlib.suppress(frames.BrokenFrame):
        header, dtype, shape = frames.parse_header(text, array_bytes)
        assert isinstance(header, dict)
        assert (0 if dtype is None else dtype.itemsize * int(np.prod(shape))) == array_bytes


@pytest.mark.parametrize(
    ("header", "array"),
    [
        (b"[" * 100_000, b""),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, b""),
        (b"\xff\xfe", b""),
        (b'{"a": NaN}', b""),
        (b'{"a": ' + b"9" * 5000 + b"}", b""),
        (b"[1]", b""),
        (b"{}", b"12345678"),
        ({"array": {"dtype": "|O", "shape": [1]}}, b"12345678"),
        ({"array": {"dtype": "<u8", "shape": [2]}}, b"12345678"),
        ({"array": {"dtype": "<u8", "shape": [-1]}}, b"12345678"),
        ({"array": {"dtype": "<u8", "shape": [True]}}, b"12345678"),
        ({"array": {"dtype": "<u8", "shape": [1 << 31, 1 << 31, 4]}}, b""),
        ({"array": {"dtype": ["<u8"], "shape": [1]}}, b"12345678"),
        ({"array": [1]}, b""),
        ({"call": ["read"]}, b""),
        ({"call": "os.system"}, b""),
        ({"call": "__init__"}, b""),
        ({"call": "read", "address": 0}, b""),
        ({"call": "read", "address": True, "count": 1}, b""),
        ({"call": "read", "address": -(10**4000), "count": 1}, b""),
        ({"call": "read", "address": 0, "count": 10**30}, b""),
        ({"call": "set_voltage", "voltage": 10**400}, b""),
        ({"call": "set_voltage", "voltage": "0.8"}, b""),
        ({"call": "read", "memory": "ifmap", "address": 0, "count": 1}, b""),
        ({"call": "read", "memory": ["weights"], "address": 0, "count": 1}, b""),
        ({"call": "read", "memory": None, "address": 0, "count": 1}, b""),
        ({"call": "write", "memory": {"weights": 1}, "array": {"dtype": "<u8", "shape": [1]}}, b"12345678"),
        ({"call": "set_voltage", "memory": "activations", "voltage": 0.5}, b""),
        ({"call": "set_voltage", "memory": "x" * 10**5, "voltage": 0.8}, b""),
        ({"call": "load", "program": {"input_shape": [1, 1, 1], "steps": [{"do": "conv"}]}}, b""),
        ({"call": "load", "program": {"input_shape": [1 << 40, 1, 1], "steps": [{"do": "flatten", "source": 0}]}}, b""),
        ({"call": "load", "program": {"input_shape": [1, 1, 1], "steps": [{"do": "flatten", "source": 7}]}}, b""),
        ({"call": "run"}, b""),
        ({"call": "write", "address": 0, "array": {"dtype": "<f4", "shape": [1]}}, b"1234"),
    ],
)
def test_a_bad_frame_is_answered_and_the_next_is_heard(header, array, plain):
    plain.sendall(frame(header, array))
    assert "error" in read_frame(plain)
    plain.sendall(frame({"call": "read", "address": 0, "count": 2}))
    assert "error" not in read_frame(plain)


@pytest.fixture(scope="module")
def plain_server():
    with serving(Plain()) as address:
        yield address


@pytest.fixture
def plain(plain_server):
    with greeted(plain_server) as connection:
        yield connection
    time.sleep(0.01)  # the next test's greeting comes after this goodbye


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<4sII", b"NFD1", 0xFFFFFFFF, 0),
        struct.pack("<4sII", b"NFD1", 2, 0xFFFFFFFF),
        bytes(4000),
    ],
)
def test_lost_frames_end_the_link_and_not_the_server(garbage, plain_server):
    with greeted(plain_server) as connection:
        connection.sendall(garbage)
        assert "error" in read_frame(connection)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    with greeted(plain_server):
        pass


def test_a_stranger_may_not_send_much(plain_server):
    connection, _ = raw(plain_server)
    with connection:
        connection.sendall(struct.pack("<4sII", b"NFD1", 5000, 0))
        assert "5000" in read_frame(connection)["message"]


CONV = {"do": "conv", "source": 0, "address": 0, "filters": 2, "channels": 1, "kernel_h": 2, "kernel_w": 2}
CONV |= {"stride": [1, 1], "padding": [1, 1], "groups": 1, "input_scale": 0.1}
CONV |= {"scale": [1.0, 1.0], "offset": [0.0, 0.0], "relu": True}
GOOD = [
    ({"call": "hello", "protocol": VERSION, "nonce": "n"}, b""),
    ({"call": "read", "address": 3, "count": 2}, b""),
    ({"call": "write", "address": 3, "array": {"dtype": "<u8", "shape": [2]}}, bytes(16)),
    ({"call": "set_voltage", "memory": "activations", "voltage": 0.7}, b""),
    ({"call": "read", "memory": "activations", "address": 3, "count": 2}, b""),
    ({"call": "write", "memory": "activations", "address": 3, "array": {"dtype": "<u8", "shape": [2]}}, bytes(16)),
    ({"call": "load", "program": {"input_shape": [1, 2, 2], "steps": [CONV, {"do": "flatten", "source": 1}]}}, b""),
    ({"call": "run", "array": {"dtype": "<f4", "shape": [1, 1, 2, 2]}}, bytes(16)),
    ({"call": "reset"}, b""),
]
WEIRD = [None, True, -1, 0, 1, 2**31, 2**63, 10**400, 0.5, -1e308, 1e-320, "", "read", [], [[]], [-1], [2**40] * 4, {}]


def framed(rng):
    """A frame whose prefix is right: random bytes or JSON-like text, a good one with some bytes changed, or with
    something else in a random place of its tree."""
    kind = rng.integers(4)
    if kind == 0:
        return frame(rng.bytes(int(rng.integers(0, 40))), rng.bytes(int(rng.integers(0, 3)) * 4))
    if kind == 1:
        letters = rng.choice(list(b'{}[]":,0159eE+-.truefalsn \\'), 30)
        return frame(bytes(letters.astype(np.uint8)))
    header, array = GOOD[rng.integers(len(GOOD))]
    if kind == 2:
        text = bytearray(json.dumps(header).encode())
        for _ in range(int(rng.integers(1, 4))):
            text[rng.integers(len(text))] = rng.integers(256)
        return frame(bytes(text), array)
    header = json.loads(json.dumps(header))
    place = header
    while True:
        key = rng.choice(list(place)) if isinstance(place, dict) else int(rng.integers(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
            place[key] = WEIRD[rng.integers(len(WEIRD))]
            return frame(header, array)
        place = place[key]


def unframed(rng):
    """What makes the two sides lose each other: noise, a wrong magic, absurd lengths, an end in the middle."""
    good = frame(*GOOD[rng.integers(len(GOOD))])
    length = [int(x) for x in rng.integers(0, 1 << 32, 2)]
    return [
        rng.bytes(int(rng.integers(1, 64))),
        b"NFD0" + good[4:],
        struct.pack("<4sII", b"NFD1", *length),
        good[: rng.integers(1, len(good))],
    ][rng.integers(4)]


def fuzz(count, seed=0):
    """Send `count` hostile frames to a server process and await the answer to each; (memory before, after) in kB."""
    rng = np.random.default_rng(seed)

    def memory():
        return int(Path(f"/proc/{running.pid}/status").read_text().split("VmRSS:")[1].split()[0])

    with process("Plain") as (running, address):
        sent, before = 0, 0
        while sent < count:
            if not before and sent > count // 5:
                before = memory()
            with greeted(address) as connection:
                for _ in range(10):
                    burst = [framed(rng) for _ in range(20)]
                    connection.sendall(b"".join(burst))
                    for _ in burst:
                        assert read_frame(connection) is not None
                    sent += len(burst)
                with contextlib.suppress(OSError):  # the server may have hung up before we do
                    connection.sendall(unframed(rng))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass
                sent += 1
            with raw(address)[0] as stranger, contextlib.suppress(ConnectionError):
                stranger.sendall(unframed(rng) if rng.random() < 0.5 else framed(rng))
                sent += 1
        after = memory()
        assert running.poll() is None
        with RemoteDevice(address, timeout_s=10) as device:  # still there, and still right
            device.write(0, [1, 2, 3])
            assert device.read(0, 3).tolist() == [1, 2, 3]
    return before, after


def test_hostile_frames():
    before, after = fuzz(5_000)
    assert after - before < 4096


def test_large_headers_do_not_fill_a_boards_memory():
    """JSON can take thirty times its bytes once it is parsed: 255 MB more for the first of these, were it parsed."""

    def peak():
        return int(Path(f"/proc/{running.pid}/status").read_text().split("VmHWM:")[1].split()[0])

    room = 8 << 20
    hostile = [
        b'{"call":"load","program":[%s0]}' % (b"[]," * (room // 3 - 20)),
        b'{"call":"load","program":[%s0]}' % (b'"ab",' * (room // 5 - 20)),
        b'{"k":{%s}}' % b",".join(b'"%d":0' % i for i in range(600_000)),
        b'{"call":"load","program":[%s0]}' % (b"1.5," * (room // 4 - 20)),
        b'{"call":"load","program":[%s0]}' % (b"1.50000000000000," * 490_000),  # as many numbers as are parsed
    ]
    with process("Plain") as (running, address), greeted(address) as connection:
        before = peak()
        for text in hostile:
            connection.sendall(frame(text))
            assert read_frame(connection)["error"] in ("DeviceError", "InputError")
        assert peak() - before < 60_000  # kB, for a header of 8 MB: text, copies, and half a million numbers


def test_the_largest_program_is_not_taken_for_hostile():
    step = Conv(0, 0, 1, 1, 1, 1, (1, 1), (0, 0), 1, 1.0, (1.0,), (0.0,), False)
    steps = tuple(dataclasses.replace(step, source=i) for i in range(MOST_STEPS))
    with serving(Plain()) as address, RemoteDevice(address, timeout_s=10) as device:
        device.load(Program((1, 1, 1), steps))


@pytest.mark.slow
def test_a_hundred_thousand_hostile_frames():
    before, after = fuzz(100_000, seed=1)
    assert after - before < 4096


# Time.


def test_a_client_gives_up_in_time():
    with process("Slow", SLOW_S="30") as (_, address):
        device = RemoteDevice(address, timeout_s=1)
        begin = time.monotonic()
        with pytest.raises(DeviceTimeout):
            device.read(0, 4)
        assert time.monotonic() - begin < 5
        with pytest.raises(LinkLost):  # the late answer would be taken for the next one's
            device.read(0, 4)


def test_silence_is_not_a_server():
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(DeviceTimeout):
        RemoteDevice(f"127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.3)


def test_a_frame_that_does_not_end_lets_the_next_client_in():
    board = Plain()
    with serving(board, frame_s=0.3) as address, greeted(address) as connection:
        connection.sendall(frame({"call": "set_voltage", "voltage": 0.5}))
        assert read_frame(connection)["voltage"] == 0.5
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in frame(*GOOD[1])[:-1]:  # a byte at a time does not extend the deadline
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
            assert connection.recv(1) == b""
        assert time.monotonic() - begin < 3
        with RemoteDevice(address, timeout_s=10) as device:
            assert board.voltage == board.info.voltage_nominal
            assert device.read(0, 1).tolist() == [0]


def test_every_supply_goes_back_to_nominal_though_one_driver_fails():
    board = Plain()
    buffer = board.memories["activations"]
    with serving(board) as address, greeted(address) as connection:
        for memory in board.memories:
            connection.sendall(frame({"call": "set_voltage", "memory": memory, "voltage": 0.7}))
            assert read_frame(connection)["voltage"] == 0.7
        board.supply = lambda voltage: 1 / 0
        connection.close()
        deadline = time.monotonic() + 5
        while buffer.voltage != 0.9 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (board.voltage, buffer.voltage) == (0.7, 0.9)
        with pytest.raises(DeviceError, match="did not go back to nominal: ZeroDivisionError"):
            RemoteDevice(address, timeout_s=10)
        del board.supply
        with RemoteDevice(address, timeout_s=10) as device:
            assert board.voltage == 0.9
            assert device.memory("activations").info == buffer.info


@pytest.mark.parametrize(
    "memories",
    [
        None,
        [],
        {},
        {"activations": "INFO"},
        {"weights": None},
        {"weights": {"name": "x"}},
        {"weights": "INFO", "activations": "INFO"},
        {"weights": "INFO", "activations": ["INFO"]},
    ],
    ids=str,
)
def test_a_device_described_in_another_way_is_of_another_version(memories):
    info = dataclasses.asdict(Plain().info)
    if isinstance(memories, dict):
        memories = {name: info if given == "INFO" else given for name, given in memories.items()}

    def answer(listener):
        connection = listener.accept()[0]
        connection.sendall(frame({"hello": "neuralfuse-device", "protocol": VERSION, "nonce": "n", "secret": False}))
        read_frame(connection)
        connection.sendall(frame({"memories": memories}))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,)).start()
        with pytest.raises(VersionMismatch, match="in another way"):
            RemoteDevice(f"127.0.0.1:{listener.getsockname()[1]}", timeout_s=10)


def test_a_client_that_says_nothing_is_let_go():
    with serving(Plain(), idle_s=0.2) as address, greeted(address) as connection:
        assert connection.recv(1) == b""


def test_an_answer_nobody_takes_is_given_up():
    with serving(Plain(), frame_s=0.5) as address:
        with greeted(address) as connection:
            ask = frame({"call": "read", "address": 0, "count": 256})
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.settimeout(3)
                for _ in range(20_000):
                    connection.sendall(ask)
        with RemoteDevice(address, timeout_s=10) as device:
            assert device.read(0, 1).tolist() == [0]


# Ends.


def test_a_server_killed_in_mid_call_is_a_lost_link():
    with process("Slow", SLOW_S="30") as (running, address):
        device = RemoteDevice(address, timeout_s=20)
        threading.Timer(0.5, running.kill).start()
        begin = time.monotonic()
        with pytest.raises(LinkLost), device:
            device.read(0, 4)
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_ends_cleanly_at_nominal_voltage(tmp_path, connected, how):
    with process("Plain", PLAIN_LOG=str(tmp_path / "log")) as (running, address):
        if connected:
            device = RemoteDevice(address, timeout_s=10)
            device.set_voltage(0.5)
        running.send_signal(how)
        assert running.wait(10) == 0
        assert running.stderr.read() == ""
        assert (tmp_path / "log").read_text() == "released at 0.9 and 0.9"
        if connected:
            with pytest.raises(LinkLost):
                device.read(0, 1)


def test_sigterm_does_not_wait_for_the_rest_of_a_frame(tmp_path):
    with process("Plain", PLAIN_LOG=str(tmp_path / "log")) as (running, address), greeted(address) as connection:
        connection.sendall(frame({"call": "set_voltage", "voltage": 0.5}))
        read_frame(connection)
        connection.sendall(frame(*GOOD[2])[:-4])
        time.sleep(0.3)
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0  # a started frame may take 30 s
        assert (tmp_path / "log").read_text() == "released at 0.9 and 0.9"


def test_a_client_that_vanishes_leaves_nominal_voltage():
    board = Plain()
    with serving(board) as address:
        connection = greeted(address)
        connection.sendall(frame({"call": "set_voltage", "voltage": 0.5}))
        assert read_frame(connection)["voltage"] == 0.5
        connection.close()
        with RemoteDevice(address, timeout_s=10):  # served after the first is gone
            assert board.voltage == board.info.voltage_nominal


def test_ctrl_c_in_mid_call_closes_the_link_and_restores_the_voltage():
    default = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    board = Plain()
    board.fetch = lambda address, count: time.sleep(1) or board.words[address : address + count]
    with serving(board) as address:
        device = RemoteDevice(address, timeout_s=10)

        def session():
            with device:
                device.set_voltage(0.5)
                threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
                device.read(0, 1)

        try:
            with pytest.raises(KeyboardInterrupt):
                session()
        finally:
            signal.signal(signal.SIGINT, default)
        with RemoteDevice(address, timeout_s=10):
            assert board.voltage == board.info.voltage_nominal


def test_a_driver_that_raises_is_told_and_served_on():
    with serving(Broken()) as address, RemoteDevice(address, timeout_s=10) as device:
        with pytest.raises(DeviceError, match="RuntimeError: bus error"):
            device.read(200, 1)
        assert device.read(0, 1).tolist() == [0]


def test_a_drivers_numpy_numbers_arrive_as_numbers():
    board = Plain()
    board.supply = np.float32
    board.fetch = lambda address, count: board.words[address : address + count].tolist()
    multiply = board.multiply
    counted = Counters(np.uint32(5), np.int64(7), np.uint8(1), 2.0, 0, np.float32(2.5))
    board.multiply = lambda *where: (multiply(*where)[0], counted)
    conv = Conv(0, 0, 1, 1, 1, 1, (1, 1), (0, 0), 1, 1.0, (1.0,), (0.0,), False)
    with serving(board) as address, RemoteDevice(address, timeout_s=10) as device:
        assert device.set_voltage(0.7) == pytest.approx(0.7)
        assert device.read(0, 2).tolist() == [0, 0]
        device.load(Program((1, 1, 1), (conv, Flatten(1))))
        assert device.run(np.ones((1, 1, 1, 1))).counters == Counters(5, 7, 1, 2, 0, 2.5)


@pytest.mark.parametrize(
    ("cycles", "says"),
    [
        (np.float32("nan"), "counts cycles = nan"),
        (float("inf"), "counts cycles = inf"),
        (5.5, "counts cycles = 5.5"),
        ("many", "ValueError"),
        (None, "TypeError"),
    ],
)
def test_counts_that_are_none_are_the_drivers_mistake(cycles, says):
    board = Plain()
    board.run = lambda batch: Run(np.zeros((1, 1), np.float32), Counters(cycles=cycles))
    with serving(board) as address, RemoteDevice(address, timeout_s=10) as device:
        with pytest.raises(DeviceError, match=says):
            device.run(np.ones((1, 1, 1, 1)))
        assert device.read(0, 1).tolist() == [0]


@pytest.mark.parametrize("read", [lambda count: np.zeros(count), lambda count: None, lambda count: ["x"] * count])
def test_words_that_are_none_are_the_drivers_mistake(read):
    board = Plain()
    board.fetch = lambda address, count: read(count)
    with serving(board) as address, RemoteDevice(address, timeout_s=10) as device:
        with pytest.raises(DeviceError, match="words of"):
            device.read(0, 2)
        assert device.set_voltage(0.7) == 0.7


def test_an_error_of_numpy_numbers_is_told():
    board = Plain()

    def refuse(address, count):
        raise InputError("board", np.int64(1), np.int64(2), np.int64(3))

    board.fetch = refuse
    with serving(board) as address, RemoteDevice(address, timeout_s=10) as device:
        with pytest.raises(InputError, match=r"board: 1 = .*2.* is not allowed; allowed: 3"):
            device.read(0, 2)
        assert device.set_voltage(0.7) == 0.7


def test_a_supply_that_reads_no_number_is_told():
    board = Plain()
    board.supply = lambda voltage: voltage if voltage > 0.8 else float("nan")
    with serving(board) as address, RemoteDevice(address, timeout_s=10) as device:
        with pytest.raises(DeviceError, match="reads a supply of nan"):
            device.set_voltage(0.7)
        assert device.read(0, 1).tolist() == [0]


class Stubborn(Plain):
    """Its regulator does not answer the next `deaf` times that it shall go up to nominal."""

    deaf = 0

    def supply(self, voltage):
        if voltage == self.info.voltage_nominal and self.deaf:
            self.deaf -= 1
            raise OSError("the regulator does not answer")
        return voltage


def left_low(address):
    """A client that lowers the supply and goes without a word."""
    with greeted(address) as connection:
        connection.sendall(frame({"call": "set_voltage", "voltage": 0.5}))
        assert read_frame(connection)["voltage"] == 0.5


def test_a_supply_that_does_not_go_up_is_asked_twice(capfd):
    board = Stubborn()
    with serving(board) as address:
        board.deaf = 1
        left_low(address)
        with RemoteDevice(address, timeout_s=10) as device:
            assert board.voltage == board.info.voltage_nominal
            assert device.read(0, 1).tolist() == [0]
    assert (
        capfd.readouterr().err
        == "plain: the supply did not go back to nominal: OSError: the regulator does not answer\n"
    )


def test_nobody_is_served_while_the_supply_is_low(capfd):
    board = Stubborn()
    with serving(board) as address:
        board.deaf = 6
        left_low(address)
        for _ in range(2):
            with pytest.raises(DeviceError, match="did not go back to nominal: OSError: the regulator does not answer"):
                RemoteDevice(address, timeout_s=10)
            assert board.voltage == 0.5
        with RemoteDevice(address, timeout_s=10):  # asked anew for each client, and now it answers
            assert board.voltage == board.info.voltage_nominal
    assert capfd.readouterr().err.count("did not go back to nominal") == 6


def test_a_server_does_not_end_quietly_below_nominal():
    board = Stubborn()
    server = Server(board)
    board.deaf = 1
    server.stop()
    server.run()  # the second time it answers
    server = Server(board)
    board.deaf = 2
    server.stop()
    with pytest.raises(DeviceError, match="did not go back to nominal"):
        server.run()


# Who may.


def test_one_client_at_a_time():
    with serving(Plain()) as address:
        with RemoteDevice(address, timeout_s=10) as first:
            with pytest.raises(Refused, match="another client"):
                RemoteDevice(address, timeout_s=10)
            assert first.read(0, 1).tolist() == [0]
        with RemoteDevice(address, timeout_s=10) as second:
            assert second.read(0, 1).tolist() == [0]


def test_a_closed_device_holds_no_socket():
    with serving(Plain()) as address:
        device = RemoteDevice(address, timeout_s=10)
        socket = device._link.socket
        device.close()
        assert socket.fileno() == -1
        device.close()  # again: nothing to do


def test_the_secret_opens_both_ways():
    with serving(Plain(), secret=SECRET) as address:
        with RemoteDevice(address, secret=SECRET, timeout_s=10) as device:
            assert device.info.name == "plain"
        with pytest.raises(Refused, match="wrong"):
            RemoteDevice(address, secret=SECRET + "!", timeout_s=10)
        with pytest.raises(Refused, match="asks for a secret"):
            RemoteDevice(address, timeout_s=10)
        connection, greeting = raw(address)
        with connection:  # the server's own word echoed back is no proof
            echo = proof(SECRET, "server", greeting["nonce"], "n")
            connection.sendall(frame({"call": "hello", "protocol": VERSION, "nonce": "n", "proof": echo}))
            assert read_frame(connection)["error"] == "Refused"
            assert unserved(connection)
    with serving(Plain()) as address, pytest.raises(Refused, match="does not know"):
        RemoteDevice(address, secret=SECRET, timeout_s=10)


@pytest.mark.parametrize(
    "hello",
    [
        {"call": "hello", "protocol": VERSION, "nonce": "n"},
        {"call": "hello", "protocol": VERSION, "nonce": "n", "proof": "0" * 64},
        {"call": "hello", "protocol": 3, "nonce": "n"},
        {"call": "hello", "protocol": VERSION},
        {"call": "read", "address": 0, "count": 1},
    ],
)
def test_who_is_refused_is_not_served(hello):
    """Told so and then served all the same would be a secret that opens nothing."""
    with serving(Plain(), secret=SECRET) as address:
        connection, _ = raw(address)
        with connection:
            connection.sendall(frame(hello))
            assert "error" in read_frame(connection)
            assert unserved(connection)


def test_nothing_but_loopback_without_a_secret():
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InputError, match="loopback"):
            Server(Plain(), host=host)
    with pytest.raises(InputError, match="16 characters"):
        Server(Plain(), secret="short")
    with pytest.raises(InputError, match="host"):
        Server(Plain(), host="no such host.invalid")
    with serving(Plain(), host="0.0.0.0", secret=SECRET) as address, RemoteDevice(address, SECRET, 10) as device:
        assert device.info.words == 256


def test_versions_must_agree(monkeypatch, plain_server):
    connection, _ = raw(plain_server)
    with connection:
        connection.sendall(frame({"call": "hello", "protocol": VERSION + 1, "nonce": "n"}))
        assert read_frame(connection)["error"] == "VersionMismatch"
    monkeypatch.setattr("simulator.device.remote.VERSION", VERSION + 1)
    with pytest.raises(VersionMismatch, match=f"client speaks protocol {VERSION + 1}"):
        RemoteDevice(plain_server, timeout_s=10)
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].sendall(frame({"hello": "something else"}))).start()
        with pytest.raises(VersionMismatch, match="does not speak"):
            RemoteDevice(f"127.0.0.1:{other.getsockname()[1]}", timeout_s=10)


def test_addresses_that_are_none():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="free"):
            Server(Plain(), port=port)
    with pytest.raises(LinkLost, match="refused"):
        RemoteDevice(f"127.0.0.1:{port}", timeout_s=5)
    for address in ("localhost", "localhost:", ":80", "localhost:http", "localhost:99999"):
        with pytest.raises(InputError, match="host:port"):
            RemoteDevice(address)


def test_devices_are_named_by_what_they_are(plain_server):
    with open_device(f"tcp:{plain_server}") as device:
        assert device.info.name == "plain"
    with open_device("driver:tests.device_boards:Plain") as device:
        assert device.info.words == 256
    for wrong in (
        "",
        "simulated",
        "simulated:",
        "vhdl:x",
        "driver:tests.device_boards",
        "driver:tests.device_boards:Nothing",
        "driver:os:PathLike",
    ):
        with pytest.raises((InputError, TypeError)):
            open_device(wrong)


def test_a_board_needs_only_python_and_numpy():
    """Server and client work where every other dependency is missing: words, voltage, a network."""
    script = """
        import sys
        class OnlyNumpy:
            def find_spec(self, name, path=None, target=None):
                top = name.split(".")[0]
                if top not in {"numpy", "simulator", "sram", "tests"} and top not in sys.stdlib_module_names:
                    raise ImportError(f"{name} is not on the board")
        sys.meta_path.insert(0, OnlyNumpy())
        sys.path[:] = [p for p in sys.path]
        import threading
        import numpy as np
        from tests import device_boards
        from simulator.device.board import pack_weights
        from simulator.device.program import Conv, Flatten, Pool, Program
        from simulator.device.remote import RemoteDevice
        from simulator.device.serve import Server
        server = Server(device_boards.Plain())
        thread = threading.Thread(target=server.run)
        thread.start()
        conv = Conv(0, 0, 2, 1, 2, 2, (1, 1), (0, 0), 1, 1.0, (1.0, 1.0), (0.0, 0.5), True)
        with RemoteDevice("127.0.0.1:%d" % server.address[1], timeout_s=10) as device:
            device.write(0, pack_weights([1, 1, 1, 1, 2, 0, 0, 0], 16))
            device.load(Program((1, 4, 4), (conv, Pool(1, "mean", 0), Flatten(2))))
            print(device.set_voltage(0.5), device.run(np.ones((1, 1, 4, 4))).outputs.tolist())
        server.stop()
        thread.join()
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, env=env)
    assert done.stdout == "0.5 [[4.0, 2.5]]\n", done.stderr


def test_silent_strangers_keep_nobody_waiting():
    with serving(Plain(), secret=SECRET) as address, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(raw(address)[0])
        start = time.monotonic()
        with RemoteDevice(address, SECRET, 10) as device:
            assert device.read(0, 1).tolist() == [0]
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("secret", ["a" * 40, "0123456789abcdef", "passwordpassword", "fedcba9876543210", "ab" * 20])
def test_a_secret_that_is_soon_guessed_is_refused(secret):
    with pytest.raises(InputError, match="secret = 'about"):
        Server(Plain(), secret=secret)


def test_who_passes_the_greeting_on_cannot_speak_for_the_client():
    """A relay between client and server sees all nonces and proofs, and still has no key."""
    with serving(Plain(), secret=SECRET) as address:
        connection, greeting = raw(address)
        with connection:
            hello = {
                "call": "hello",
                "protocol": VERSION,
                "nonce": "n",
                "proof": proof(SECRET, "client", greeting["nonce"], "n"),
            }
            connection.sendall(frame(hello))
            assert "memories" in read_frame(connection)
            connection.sendall(frame({"call": "set_voltage", "voltage": 0.5}) + bytes(32))
            header = read_frame(connection)
            assert "has not sent" in header["message"]
            connection.recv(frames.TAG_BYTES, socket.MSG_WAITALL)
            assert unserved(connection)


def test_a_signed_frame_cannot_be_changed_or_repeated():
    left, right = socket.socketpair()
    sender, receiver = frames.Link(left), frames.Link(right)
    sender.sign(b"k" * 32, b"l" * 32)
    receiver.sign(b"l" * 32, b"k" * 32)
    sender.send({"call": "reset"}, np.arange(3), timeout_s=5)
    assert receiver.receive(timeout_s=5)[1].tolist() == [0, 1, 2]
    sender.sent -= 1  # as who repeats what was heard
    sender.send({"call": "reset"}, timeout_s=5)
    with pytest.raises(frames.BrokenFrame, match="has not sent"):
        receiver.receive(timeout_s=5)
    sender.close()
    receiver.close()


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda device: device.set_voltage(0.7), ({"voltage": "high"}, None)),
        (lambda device: device.set_voltage(0.7), ({}, None)),
        (lambda device: device.set_voltage(0.7), ({"voltage": True}, None)),
        (lambda device: device.read(0, 1), ({}, np.zeros(2, np.uint64))),
        (lambda device: device.read(0, 1), ({}, np.full(1, 1 << 60, np.uint64))),
        (lambda device: device.read(0, 1), ({}, np.zeros(1, np.float32))),
        (lambda device: device.run(np.ones((1, 1, 1, 1))), ({"counters": {}}, None)),
        (lambda device: device.run(np.ones((1, 1, 1, 1))), ({}, np.zeros((1, 1), np.float32))),
        (lambda device: device.run(np.ones((1, 1, 1, 1))), ({"counters": {"x": 1}}, np.zeros((1, 1), np.float32))),
        (lambda device: device.run(np.ones((1, 1, 1, 1))), ({"counters": {}}, np.zeros((2, 1), np.float32))),
        (
            lambda device: device.run(np.ones((1, 1, 1, 1))),
            ({"counters": {"cycles": "y"}}, np.zeros((1, 1), np.float32)),
        ),
    ],
)
def test_an_answer_that_is_none_is_a_lost_link(call, answer, plain_server, monkeypatch):
    with contextlib.closing(RemoteDevice(plain_server, timeout_s=10)) as device:
        with monkeypatch.context() as patch:
            patch.setattr(device, "_call", lambda *_, **__: answer)
            with pytest.raises(LinkLost, match="an answer"):
                call(device)
