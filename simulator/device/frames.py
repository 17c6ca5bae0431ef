"""Frames on a socket: 12 bytes of prefix, a JSON header, the raw bytes of one array. Standard library and NumPy only.

Prefix: b"NFD1", length of the header, length of the array's bytes, both uint32 little-endian. The header says dtype
and shape under "array". Nothing that arrives is executed or unpickled; lengths are checked before a byte of the body
is read, and memory grows with what has arrived, not with what was announced.
"""

import contextlib
import hmac
import json
import math
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREFIX = struct.Struct("<4sII")
MAGIC = b"NFD1"
DTYPES = ("<u8", "<f4")
CHUNK = 1 << 18
TAG_BYTES = 32
Frame = list[bytes | memoryview]  # its parts, ready to send


class BrokenFrame(Exception):
    """What arrived is not a frame. `lost` says whether the two sides no longer agree where the next one begins."""

    def __init__(self, message: str, lost: bool):
        super().__init__(message)
        self.lost = lost


class LinkClosed(Exception):
    """The other side is gone."""


class TooLate(Exception):
    """A frame did not come or go in time."""


@dataclass(frozen=True)
class Limits:
    """The largest header and array, in bytes, that are accepted."""

    header_bytes: int
    array_bytes: int


# A program of a hundred layers with a thousand filters each is 4 MB of JSON; an image batch or memory dump 16 MB.
OPEN = Limits(8 << 20, 32 << 20)
STRANGER = Limits(1024, 0)
# Parsed, a list, a text or a short number takes up to thirty times its bytes. The largest program (MOST_STEPS steps of
# 5 lists and 15 texts; 20 bytes a number) has fewer of each than this; a header that has more is not parsed.
MOST_LISTS, MOST_QUOTES, MOST_COMMAS = 1 << 15, 1 << 18, 1 << 19


def pack(header: dict[str, Any], array: NDArray[Any] | None = None) -> Frame:
    r"""The parts of a frame. Arrays travel as uint64 or float32, C order.

    >>> b"".join(pack({"call": "reset"}))
    b'NFD1\x10\x00\x00\x00\x00\x00\x00\x00{"call":"reset"}'
    """
    body: bytes | memoryview = b""
    if array is not None:
        array = np.asarray(array, dtype="<f4" if array.dtype.kind == "f" else "<u8", order="C")
        header = {**header, "array": {"dtype": array.dtype.str, "shape": list(array.shape)}}
        body = array.reshape(-1).view(np.uint8).data
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    return [PREFIX.pack(MAGIC, len(text), len(body)) + text, body]


def tag(key: bytes, number: int, frame: Frame) -> bytes:
    """What ends the frame of this number where frames are signed."""
    total = hmac.new(key, number.to_bytes(8, "little"), "sha256")
    for part in frame:
        total.update(part)
    return total.digest()


def parse_prefix(prefix: bytes, limits: Limits) -> tuple[int, int]:
    """Lengths of header and array. BrokenFrame (lost) for another magic or lengths over the limits."""
    magic, header_bytes, array_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise BrokenFrame("not a frame of this protocol", lost=True)
    if header_bytes > limits.header_bytes or array_bytes > limits.array_bytes:
        allowed = f"{limits.header_bytes} and {limits.array_bytes} bytes"
        raise BrokenFrame(f"header and array of {header_bytes} and {array_bytes} bytes; allowed: {allowed}", lost=True)
    return header_bytes, array_bytes


def parse_header(text: bytes, array_bytes: int) -> tuple[dict[str, Any], np.dtype[Any] | None, tuple[int, ...]]:
    """The header, and dtype and shape of its array. BrokenFrame (not lost) for anything but a JSON object that fits
    the array."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    lists = text.count(b"[") + text.count(b"{")
    if lists > MOST_LISTS or text.count(b'"') > MOST_QUOTES or text.count(b",") > MOST_COMMAS:
        allowed = f"{MOST_LISTS} lists, {MOST_QUOTES // 2} texts, {MOST_COMMAS} commas"
        raise BrokenFrame(f"header of more than {allowed}", lost=False)
    try:
        header = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenFrame(f"header is not JSON: {str(error)[:80]}", lost=False) from None
    if not isinstance(header, dict):
        raise BrokenFrame("header is not a JSON object", lost=False)
    if "array" not in header:
        if array_bytes:
            raise BrokenFrame("array bytes without a description", lost=False)
        return header, None, ()
    description = header.pop("array")
    if not isinstance(description, dict) or description.get("dtype") not in DTYPES:
        raise BrokenFrame(f"array dtype; allowed: {', '.join(DTYPES)}", lost=False)
    dtype, shape = np.dtype(description["dtype"]), description.get("shape")
    if not isinstance(shape, list) or len(shape) > 4 or not all(type(n) is int and 0 <= n < 1 << 32 for n in shape):
        raise BrokenFrame("array shape; allowed: at most four sizes", lost=False)
    if math.prod(shape) * dtype.itemsize != array_bytes:
        raise BrokenFrame(f"array of {shape} {dtype} does not have {array_bytes} bytes", lost=False)
    return header, dtype, tuple(shape)


class Link:
    """A connected socket that carries frames, each with a deadline. Not blocking; used by one thread.

    Where `interrupt` becomes readable, a frame that is half way counts as closed.
    """

    def __init__(self, connection: socket.socket, limits: Limits = OPEN, interrupt: socket.socket | None = None):
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # a Unix socket has no Nagle to turn off
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket, self.limits, self.interrupt = connection, limits, interrupt
        self.keys: tuple[bytes, bytes] | None = None
        self.sent = self.received = 0

    def sign(self, mine: bytes, theirs: bytes) -> None:
        """From now on every frame ends with a tag under the key of its direction, over its number and content: who
        stands between the two sides can neither change, repeat nor add one."""
        self.keys = mine, theirs

    def send(self, header: dict[str, Any], array: NDArray[Any] | None = None, *, timeout_s: float) -> None:
        """Send a frame. TooLate, LinkClosed."""
        self.send_packed(pack(header, array), timeout_s=timeout_s)

    def send_packed(self, frame: Frame, *, timeout_s: float) -> None:
        """Send what `pack` made. TooLate, LinkClosed."""
        deadline = time.monotonic() + timeout_s
        if self.keys:
            frame = [*frame, tag(self.keys[0], self.sent, frame)]
        self.sent += 1
        for part in frame:
            view = memoryview(part)
            while len(view):
                try:
                    view = view[self.socket.send(view) :]
                except BlockingIOError:
                    self._wait(deadline, for_write=True)
                except OSError as error:
                    raise LinkClosed(str(error)) from None

    def receive(self, *, timeout_s: float) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """The next frame, whole within timeout_s. TooLate, LinkClosed, BrokenFrame."""
        deadline = time.monotonic() + timeout_s
        prefix = bytes(self._exactly(PREFIX.size, deadline))
        header_bytes, array_bytes = parse_prefix(prefix, self.limits)
        text, body = self._exactly(header_bytes, deadline), self._exactly(array_bytes, deadline)
        if self.keys:
            expected = tag(self.keys[1], self.received, [prefix, bytes(text), memoryview(body)])
            if not hmac.compare_digest(bytes(self._exactly(TAG_BYTES, deadline)), expected):
                raise BrokenFrame("a frame that the other side has not sent", lost=True)
        self.received += 1
        header, dtype, shape = parse_header(bytes(text), array_bytes)
        return header, None if dtype is None else np.frombuffer(body, dtype).reshape(shape)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _exactly(self, count: int, deadline: float) -> bytearray:
        got = bytearray()
        while len(got) < count:
            try:
                part = self.socket.recv(min(count - len(got), CHUNK))
            except BlockingIOError:
                self._wait(deadline, for_write=False)
                continue
            except OSError as error:
                raise LinkClosed(str(error)) from None
            if not part:
                raise LinkClosed("closed by the other side")
            got += part
            if time.monotonic() > deadline:
                raise TooLate("a frame did not arrive whole in time")
        return got

    def _wait(self, deadline: float, for_write: bool) -> None:
        left = deadline - time.monotonic()
        mine = [self.socket]
        readers = ([] if for_write else mine) + ([self.interrupt] if self.interrupt else [])
        ready = select.select(readers, mine if for_write else [], [], left) if left > 0 else ([], [], [])
        if self.interrupt in ready[0]:
            raise LinkClosed("interrupted")
        if not any(ready):
            raise TooLate("nothing moved in time")
