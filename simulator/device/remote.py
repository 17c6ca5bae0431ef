"""A device behind a TCP port, seen from the other side: every call is one frame out and one back."""

import hmac
import math
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.device.frames import OPEN, BrokenFrame, Link, LinkClosed, TooLate
from simulator.device.program import Program
from simulator.device.protocol import (
    VERSION,
    Counters,
    Device,
    DeviceError,
    DeviceInfo,
    DeviceMemory,
    DeviceTimeout,
    LinkLost,
    Refused,
    Run,
    VersionMismatch,
    VoltageOutOfRange,
    WordOutOfRange,
    as_words,
    check_span,
)
from simulator.device.serve import Reply, counted, proof, session_keys
from sram.errors import InputError

INPUT_ERRORS = {kind.__name__: kind for kind in (InputError, VoltageOutOfRange, WordOutOfRange)}
DEVICE_ERRORS = {kind.__name__: kind for kind in (DeviceError, DeviceTimeout, Refused, VersionMismatch)}
FRAME_WORDS = OPEN.array_bytes // 8


class RemoteMemory(DeviceMemory):
    """A memory of the device that `device` is the other side of."""

    def __init__(self, device: "RemoteDevice", info: DeviceInfo):
        self._device, self._info = device, info

    @property
    def info(self) -> DeviceInfo:
        return self._info

    def write(self, address: int, words: ArrayLike) -> None:
        array = as_words(self.info, address, words)
        for start in range(0, len(array), FRAME_WORDS):
            some = array[start : start + FRAME_WORDS]
            self._device._call("write", some, memory=self.info.memory, address=address + start)

    def read(self, address: int, count: int) -> NDArray[np.uint64]:
        check_span(self.info, address, count)
        parts = []
        for start in range(0, count, FRAME_WORDS):
            some = min(FRAME_WORDS, count - start)
            part = self._device._call("read", memory=self.info.memory, address=address + start, count=some)[1]
            if part is None or part.shape != (some,):
                raise self._device._lost("an answer of the wrong size")
            if part.dtype != np.uint64 or part.max(initial=0) > np.uint64((1 << self.info.word_bits) - 1):
                raise self._device._lost(f"an answer that is no words of {self.info.word_bits} bits")
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint64), *parts])

    def set_voltage(self, voltage: float) -> float:
        wanted = self.info.reached(voltage)
        reached = self._device._call("set_voltage", memory=self.info.memory, voltage=wanted)[0].get("voltage")
        if not isinstance(reached, int | float) or isinstance(reached, bool) or not math.isfinite(reached):
            raise self._device._lost(f"an answer of voltage {str(reached)[:40]}")
        return float(reached)


class RemoteDevice(RemoteMemory, Device):
    """The device served at "host:port". Every call answers within timeout_s or raises DeviceTimeout.

    LinkLost where nobody answers; Refused where another client is served or the secret is wrong; VersionMismatch.
    After a timeout, a lost link or Ctrl-C in the middle of a call the link is closed: the two sides could no longer
    tell whose answer is whose. The server then brings the voltage back to nominal.
    """

    def __init__(self, address: str, secret: str | None = None, timeout_s: float = 60.0):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InputError("device", "address", address, "host:port")
        self.address, self.timeout_s = address, timeout_s
        self._link: Link | None = None
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s)
        except TimeoutError:
            raise DeviceTimeout(f"{address}: no answer in {timeout_s:g} s") from None
        except OSError as error:
            raise LinkLost(f"{address}: {error.strerror or error}") from None
        self._link = Link(connection)
        try:
            weights, *others = self._greet(secret)
        except BaseException:
            self._drop()
            raise
        super().__init__(self, weights)
        self._memories: dict[str, DeviceMemory] = {"weights": self}
        self._memories |= {info.memory: RemoteMemory(self, info) for info in others}

    def _greet(self, secret: str | None) -> list[DeviceInfo]:
        greeting, _ = self._receive(time.monotonic() + self.timeout_s)
        if greeting.get("hello") != "neuralfuse-device":
            raise VersionMismatch(f"{self.address} does not speak this protocol")
        if greeting.get("protocol") != VERSION:
            raise VersionMismatch(f"the client speaks protocol {VERSION}, {self.address} {greeting.get('protocol')}")
        if greeting.get("secret") and secret is None:
            raise Refused(f"{self.address} asks for a secret")
        nonce, theirs = secrets.token_hex(16), str(greeting.get("nonce"))
        hello: dict[str, Any] = {"protocol": VERSION, "nonce": nonce}
        if secret is not None:
            hello["proof"] = proof(secret, "client", theirs, nonce)
        answer, _ = self._call("hello", **hello)
        if secret is not None and not hmac.compare_digest(
            str(answer.get("proof")).encode(), proof(secret, "server", theirs, nonce).encode()
        ):
            raise Refused(f"{self.address} does not know the secret")
        if secret is not None and self._link is not None:
            self._link.sign(*session_keys(secret, theirs, nonce))
        try:
            infos = {name: DeviceInfo(**info) for name, info in answer["memories"].items()}
            if any(name != info.memory for name, info in infos.items()):
                raise KeyError
            return [infos.pop("weights"), *infos.values()]
        except (KeyError, TypeError, AttributeError, InputError):
            raise VersionMismatch(f"{self.address} describes its device in another way") from None

    @property
    def memories(self) -> Mapping[str, DeviceMemory]:
        return self._memories

    def load(self, program: Program) -> None:
        self._call("load", program=program.to_json())

    def run(self, batch: ArrayLike) -> Run:
        array = np.asarray(batch, dtype=np.float32)
        if array.nbytes > OPEN.array_bytes:
            raise InputError("run", "batch", len(array), f"at most {OPEN.array_bytes} bytes of images a run")
        header, outputs = self._call("run", array)
        if outputs is None or outputs.dtype != np.float32 or outputs.shape[:1] != array.shape[:1]:
            raise self._lost("an answer without an output for each image")
        try:
            return Run(outputs, Counters(**counted(Counters(**header["counters"]))))
        except (KeyError, TypeError, ValueError, OverflowError, DeviceError):
            raise self._lost(f"an answer with counters {str(header.get('counters'))[:80]}") from None

    def reset(self) -> None:
        self._call("reset")

    def close(self) -> None:
        if self._link is not None:
            try:
                self._call("close")
            except DeviceError:
                pass
            finally:
                self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _lost(self, reason: str) -> LinkLost:
        self._drop()
        return LinkLost(f"{self.address}: {reason}")

    def _call(self, call: str, array: NDArray[Any] | None = None, **fields: Any) -> Reply:
        if self._link is None:
            raise LinkLost(f"{self.address}: the link was closed")
        deadline = time.monotonic() + self.timeout_s
        try:
            self._link.send({"call": call, **fields}, array, timeout_s=self.timeout_s)
        except LinkClosed as error:
            raise self._lost(str(error)) from None
        except TooLate:
            self._drop()
            raise DeviceTimeout(f"{self.address}: {call} was not taken in {self.timeout_s:g} s") from None
        except BaseException:  # Ctrl-C half way through a frame
            self._drop()
            raise
        return self._receive(deadline)

    def _receive(self, deadline: float) -> Reply:
        assert self._link is not None
        try:
            header, array = self._link.receive(timeout_s=max(0.0, deadline - time.monotonic()))
        except TooLate:
            self._drop()
            raise DeviceTimeout(f"{self.address}: no answer in {self.timeout_s:g} s") from None
        except (LinkClosed, BrokenFrame) as error:
            raise self._lost(str(error)) from None
        except BaseException:  # Ctrl-C: the answer is still on its way
            self._drop()
            raise
        if "error" not in header:
            return header, array
        if str(header["error"]) in INPUT_ERRORS:
            raise INPUT_ERRORS[str(header["error"])](
                *(header.get(key, "") for key in ("where", "key", "value", "allowed"))
            )
        raise DEVICE_ERRORS.get(str(header["error"]), DeviceError)(str(header.get("message", "")))
