"""A device behind a TCP port: `python -m simulator.device.serve lab.module:Board`. Standard library and NumPy only.

One thread, one client at a time; a second one is told so and let go. Strangers who say nothing keep nobody waiting. A
client that goes away, says nothing for `idle_s`, or does not finish a frame within `frame_s` is let go, and the voltage
goes back to nominal before the next is heard. Where it does not come back, that is printed and told to whoever calls,
and nobody is served until it does.
"""

import argparse
import collections
import contextlib
import hmac
import ipaddress
import itertools
import math
import os
import secrets
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.device.frames import OPEN, STRANGER, BrokenFrame, Frame, Link, LinkClosed, TooLate, pack
from simulator.device.program import Program
from simulator.device.protocol import (
    VERSION,
    Counters,
    Device,
    DeviceError,
    DeviceMemory,
    Refused,
    VersionMismatch,
)
from sram import plugins
from sram.errors import InputError

Reply = tuple[dict[str, Any], NDArray[Any] | None]
SHORTEST_SECRET = 16
LEAST_BITS = 36  # of a secret; 16 random hexadecimal digits have some 55
GREETING_S = 5.0  # a stranger may be silent so long; others are greeted beside him
HELLO_S = 0.5  # and take so long over his one short frame, for which the others wait
MOST_STRANGERS = 64


def proof(secret: str, role: str, server_nonce: str, client_nonce: str) -> str:
    """What only a holder of the secret can say to these two nonces; `role` keeps one side from echoing the other."""
    return hmac.new(secret.encode(), f"{role}:{server_nonce}:{client_nonce}".encode(), "sha256").hexdigest()


def session_keys(secret: str, server_nonce: str, client_nonce: str) -> tuple[bytes, bytes]:
    """The keys of frames from the client and from the server: of this conversation alone, and never sent."""
    nonces = (server_nonce, client_nonce)
    return bytes.fromhex(proof(secret, "from client", *nonces)), bytes.fromhex(proof(secret, "from server", *nonces))


class Server:
    """Serves `device` on host:port (0: any free port, see `.address`) until `stop`. The device stays its owner's to
    close.

    InputError unless the host is loopback or there is a secret of at least 16 characters. Frames are not encrypted:
    across a network that others share, go through an SSH tunnel.
    """

    def __init__(
        self,
        device: Device,
        host: str = "127.0.0.1",
        port: int = 0,
        secret: str | None = None,
        idle_s: float = 600.0,
        frame_s: float = 30.0,
    ):
        check_secret(host, secret)
        self.device, self.secret, self.idle_s, self.frame_s = device, secret, idle_s, frame_s
        self.infos = {name: asdict(memory.info) for name, memory in device.memories.items()}
        self.stopping = False
        self.strangers: dict[Link, tuple[str, float]] = {}  # greeted, with nonce and deadline; nobody is served yet
        self.supply_trouble = ""  # why the supply may not be at nominal
        try:
            self.listener = socket.create_server((host, port), backlog=8)
        except OSError as error:
            raise InputError(
                "serve", "address", f"{host}:{port}", f"an address that is free ({error.strerror})"
            ) from None
        self.listener.setblocking(False)
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.wake_read, self.wake_write = socket.socketpair()
        self.wake_write.setblocking(False)

    def stop(self) -> None:
        """Ask `run` to return after the call in hand. Safe in a signal handler and from other threads."""
        self.stopping = True
        with contextlib.suppress(OSError):  # already full of wake-ups, or closed
            self.wake_write.send(b"x")

    def run(self) -> None:
        """Serve until `stop`; on the way out the voltage is nominal and all sockets are closed. DeviceError where the
        voltage did not come back."""
        try:
            while not self.stopping:
                deadlines = [deadline for _, deadline in self.strangers.values()]
                left = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
                ready = self._wait([self.listener, *(link.socket for link in self.strangers)], left)
                self._hear(ready)
                if self.listener in ready:
                    self._meet()
        finally:
            for link in list(self.strangers):
                self._forget(link)
            for each in (self.listener, self.wake_read, self.wake_write):
                each.close()
            if not self._to_nominal():
                raise DeviceError(self.supply_trouble)

    def _to_nominal(self) -> bool:
        """Bring the supplies back to nominal; False where the driver does not, which `supply_trouble` then says.

        It is asked twice: a bus that was busy, or that a dying client left in the middle of a word, is free the next
        time. A reading that is no number is as bad as none: nobody knows then what the memory stands on.
        """
        for _ in range(2):
            try:
                self.device.to_nominal()
                self.supply_trouble = ""
                return True
            except Exception as error:  # a driver may raise anything; the server stays up
                self.supply_trouble = (
                    f"the supply did not go back to nominal: {type(error).__name__}: {str(error)[:500]}"
                )
                print(f"{self.device.info.name}: {self.supply_trouble}", file=sys.stderr, flush=True)
        return False

    def _wait(self, sockets: list[socket.socket], timeout_s: float | None) -> list[socket.socket]:
        return select.select([*sockets, self.wake_read], [], [], timeout_s)[0]

    def _accept(self) -> Link | None:
        try:
            connection, _ = self.listener.accept()
        except OSError:  # gone before we came to it
            return None
        return Link(connection, STRANGER, self.wake_read)

    def _busy(self) -> None:
        """Tell one who knocks that another is served."""
        if (link := self._accept()) is not None:
            _tell(link, Refused("the device is serving another client"))
            link.close()

    def _meet(self) -> None:
        """Greet who knocks; nobody where the supply is not at nominal."""
        if (link := self._accept()) is None:
            return
        if self.supply_trouble and not self._to_nominal():
            _tell(link, DeviceError(self.supply_trouble))
            link.close()
            return
        if len(self.strangers) == MOST_STRANGERS:
            self._forget(next(iter(self.strangers)))
        nonce = secrets.token_hex(16)
        self.strangers[link] = nonce, time.monotonic() + min(self.frame_s, GREETING_S)
        greeting = {"hello": "neuralfuse-device", "protocol": VERSION, "nonce": nonce}
        try:
            link.send(greeting | {"secret": self.secret is not None}, timeout_s=0)
        except (LinkClosed, TooLate):
            self._forget(link)

    def _forget(self, link: Link) -> None:
        del self.strangers[link]
        link.close()

    def _hear(self, sockets: list[socket.socket]) -> None:
        """Serve the first stranger of these who says what lets him in, and let those go who are too late."""
        for link, (nonce, deadline) in list(self.strangers.items()):
            if link.socket not in sockets:
                if time.monotonic() >= deadline:
                    _tell(link, DeviceError("no greeting in time"))
                    self._forget(link)
                continue
            with contextlib.suppress(LinkClosed, TooLate):
                if self._greet(link, nonce):
                    for other in [other for other in self.strangers if other is not link]:
                        _tell(other, Refused("the device is serving another client"))
                        self._forget(other)
                    self._serve(link)
            self._forget(link)
            if not self.strangers:
                return

    def _serve(self, link: Link) -> None:
        """One client, and the voltage back at nominal after it."""
        try:
            self._converse(link)
        finally:
            self._to_nominal()

    def _converse(self, link: Link) -> None:
        """From greeting to goodbye."""
        while not self.stopping:
            if not self._await_frame(link):
                return
            try:
                header, array = link.receive(timeout_s=self.frame_s)
            except BrokenFrame as error:
                link.send(error_record(DeviceError(str(error))), timeout_s=self.frame_s)
                if error.lost:
                    return
                continue
            link.send_packed(answer(self.device, header, array), timeout_s=self.frame_s)
            if header.get("call") == "close":
                return

    def _await_frame(self, link: Link) -> bool:
        """Wait until the client says something, turning others away; False when it is time to let it go."""
        deadline = time.monotonic() + self.idle_s
        while not self.stopping and (left := deadline - time.monotonic()) > 0:
            ready = self._wait([link.socket, self.listener], left)
            if link.socket in ready:  # first: it may have gone, to make room for the one who knocks
                return True
            if self.listener in ready:
                self._busy()
        return False

    def _greet(self, link: Link, nonce: str) -> bool:
        """Version and secret, both ways, of a stranger who says something; then he may send large frames."""
        patience = min(self.frame_s, HELLO_S)
        reply: dict[str, Any]
        try:
            header, _ = link.receive(timeout_s=patience)
            theirs = header.get("nonce")
            if header.get("call") != "hello" or not isinstance(theirs, str):
                raise Refused("the first frame must be hello with a nonce")
            if header.get("protocol") != VERSION:
                raise VersionMismatch(
                    f"the server speaks protocol {VERSION}, the client {str(header.get('protocol'))[:20]}"
                )
            reply = {"memories": self.infos}
            if self.secret is not None:
                given = header.get("proof")
                expected = proof(self.secret, "client", nonce, theirs)
                if not isinstance(given, str) or not hmac.compare_digest(
                    given.encode(errors="replace"), expected.encode()
                ):
                    raise Refused("the secret is wrong")
                reply["proof"] = proof(self.secret, "server", nonce, theirs)
        except (BrokenFrame, Refused, VersionMismatch) as error:
            kind = DeviceError(str(error)) if isinstance(error, BrokenFrame) else error
            link.send(error_record(kind), timeout_s=patience)
            return False
        link.send(reply, timeout_s=patience)
        link.limits = OPEN
        if self.secret is not None:
            from_client, from_server = session_keys(self.secret, nonce, theirs)
            link.sign(from_server, from_client)
        return True


def answer(device: Device, header: dict[str, Any], array: NDArray[Any] | None) -> Frame:
    """Do what a frame asks; the reply, ready to send. Whatever goes wrong is told in it, what cannot be packed too;
    nothing is raised but Ctrl-C and its like."""
    try:
        call = header.get("call")
        if not isinstance(call, str) or call not in CALLS:
            raise InputError("frame", "call", str(call)[:40], ", ".join(CALLS))
        return pack(*CALLS[call](device, header, array))
    except Exception as error:  # a driver may raise anything; the server stays up
        return pack(error_record(error))


def _tell(link: Link, error: DeviceError) -> None:
    """Say an error to one who is about to be let go."""
    with contextlib.suppress(LinkClosed, TooLate):
        link.send(error_record(error), timeout_s=0)


def error_record(error: Exception) -> dict[str, Any]:
    """An exception as JSON; `remote` makes the same exception of it."""
    if isinstance(error, InputError):
        plain = isinstance(error.value, str | int) or (isinstance(error.value, float) and math.isfinite(error.value))
        value = error.value if plain else repr(error.value)[:200]
        return {
            "error": type(error).__name__,
            "where": error.where,
            "key": str(error.key),
            "value": value,
            "allowed": str(error.allowed),
        }
    if isinstance(error, DeviceError):
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": "DeviceError", "message": f"{type(error).__name__}: {str(error)[:500]}"}


def _integer(header: dict[str, Any], key: str) -> int:
    value = header.get(key)
    if type(value) is not int:
        raise InputError("frame", key, str(value)[:40], "an integer")
    return value


def _memory(device: Device, header: dict[str, Any]) -> DeviceMemory:
    name = header.get("memory", "weights")
    if not isinstance(name, str):
        raise InputError("frame", "memory", str(name)[:40], ", ".join(device.memories))
    return device.memory(name)


def _array(array: NDArray[Any] | None, dtype: str) -> NDArray[Any]:
    if array is None or array.dtype.str != dtype:
        raise InputError("frame", "array", "none" if array is None else array.dtype.str, dtype)
    return array


# Drivers read registers and meters with NumPy, whose numbers JSON does not know.


def _volts(reached: float) -> float:
    volts = float(reached)
    if not math.isfinite(volts):
        raise DeviceError(f"the driver reads a supply of {volts}")
    return volts


def counted(counters: Counters) -> dict[str, Any]:
    """Counters as numbers that JSON knows. DeviceError where they are none."""
    plain = asdict(counters)
    for key, value in plain.items():
        if key == "energy_pj" and value is None:
            continue
        number = float(value)
        if not math.isfinite(number) or (key != "energy_pj" and not number.is_integer()):
            raise DeviceError(f"the driver counts {key} = {number}")
        plain[key] = number if key == "energy_pj" else int(value)
    return plain


def _write(device: Device, header: dict[str, Any], array: NDArray[Any] | None) -> Reply:
    _memory(device, header).write(_integer(header, "address"), _array(array, "<u8"))
    return {}, None


def _read(device: Device, header: dict[str, Any], _: NDArray[Any] | None) -> Reply:
    count = _integer(header, "count")
    if count * 8 > OPEN.array_bytes:
        raise InputError("frame", "count", count, f"at most {OPEN.array_bytes // 8} words a frame")
    words = np.asarray(_memory(device, header).read(_integer(header, "address"), count))
    if words.dtype.kind not in "ui":
        raise DeviceError(f"the driver read words of {words.dtype}, not integers")
    return {}, words


def _set_voltage(device: Device, header: dict[str, Any], _: NDArray[Any] | None) -> Reply:
    voltage = header.get("voltage")
    if not isinstance(voltage, int | float) or isinstance(voltage, bool) or not abs(voltage) <= 1e6:
        raise InputError("frame", "voltage", str(voltage)[:40], "a number")
    return {"voltage": _volts(_memory(device, header).set_voltage(float(voltage)))}, None


def _load(device: Device, header: dict[str, Any], _: NDArray[Any] | None) -> Reply:
    device.load(Program.from_json(header.get("program")))
    return {}, None


def _run(device: Device, _: dict[str, Any], array: NDArray[Any] | None) -> Reply:
    result = device.run(_array(array, "<f4"))
    return {"counters": counted(result.counters)}, np.asarray(result.outputs, np.float32)


def _reset(device: Device, *_: Any) -> Reply:
    device.reset()
    return {}, None


def _close(*_: Any) -> Reply:
    return {}, None


CALLS: dict[str, Callable[[Device, dict[str, Any], NDArray[Any] | None], Reply]] = {
    "write": _write,
    "read": _read,
    "set_voltage": _set_voltage,
    "load": _load,
    "run": _run,
    "reset": _reset,
    "close": _close,
}


def guessed_bits(secret: str) -> float:
    """An upper bound of what there is to guess in a secret: characters as drawn from its own, repeats and runs such as
    abc and 321 counted once.

    >>> round(guessed_bits("aaaaaaaaaaaaaaaa")), round(guessed_bits("0123456789abcdef")), guessed_bits("abc" * 9) < 9
    (0, 9, True)
    """
    period = (secret + secret).find(secret, 1)  # of what is repeated
    codes = [ord(letter) for letter in secret[:period]]
    steps = [after - before for before, after in itertools.pairwise(codes)]
    return min(_entropy(codes), _entropy(steps) + math.log2(max(len(set(codes)), 1)))


def _entropy(symbols: list[int]) -> float:
    """Bits in a row of symbols, each as often as it is there."""
    return sum(count * math.log2(len(symbols) / count) for count in collections.Counter(symbols).values())


def check_secret(host: str, secret: str | None) -> None:
    """InputError where a server on `host` would be open to others without a good secret."""
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise InputError("serve", "secret", f"{len(secret)} characters", f"at least {SHORTEST_SECRET} characters")
    if secret is not None and (guessed := guessed_bits(secret)) < LEAST_BITS:
        allowed = 'one that nobody guesses, such as that of: python -c "import secrets; print(secrets.token_hex())"'
        raise InputError("serve", "secret", f"about {guessed:.0f} bits", allowed)
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        raise InputError("serve", "host", host, "a name or address of this machine") from None
    if secret is None and not all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in found):
        raise InputError("serve", "host", host, "loopback, or a shared secret with it")


def load_driver(name: str) -> Device:
    """The device that `module:Class` makes when called without arguments; the module may lie in the current folder."""
    plugins.allow_folder(Path.cwd())
    device = plugins.imported(name, "device driver")()
    if not isinstance(device, Device):
        raise InputError("device", "driver", name, "a subclass of simulator.device.protocol.Device")
    return device


def serve(device: Device, host: str, port: int, secret: str | None) -> None:
    """Serve until SIGTERM or Ctrl-C; the device is then at nominal voltage. Prints the address once it listens."""
    server = Server(device, host, port, secret)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: server.stop())
    print(f"{device.info.name}: serving on {server.address[0]}:{server.address[1]}", flush=True)
    server.run()


def main() -> None:
    """For a board with nothing but Python and NumPy; elsewhere `neuralfuse device serve` says the same more nicely."""
    parser = argparse.ArgumentParser(
        description="Put a device behind a TCP port. The secret is read from NEURALFUSE_SECRET."
    )
    parser.add_argument("driver", help="module:Class of a simulator.device.board.Board")
    parser.add_argument(
        "--allow-import", action="append", default=[], metavar="MODULE", help="where the driver is installed"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7533)
    options = parser.parse_args()
    try:
        plugins.allow_imports(*options.allow_import)
        with load_driver(options.driver) as device:
            serve(device, options.host, options.port, os.environ.get("NEURALFUSE_SECRET"))
    except (InputError, DeviceError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
