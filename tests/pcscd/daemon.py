"""A PC/SC daemon of our own with the reader driver of vsmartcard (vpcd), and cards that are put into its readers.

It runs in a mount and a network namespace of its own, so that it neither disturbs a pcscd of this PC nor listens on its
network: vpcd listens on all addresses, and here the only one is loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optima_bridge.link.memory_card import Card
from optima_drivers.pcsc.vpcd import serve

FAMILY = "Optima Key Reader"
READERS = (f"{FAMILY} 00 00", f"{FAMILY} 00 01")  # vpcd has two and no more
DRIVER = Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")
PORT = 0x9101
TIMEOUT_S = 10.0
CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """What is missing on this machine; empty: nothing."""
    if os.geteuid() != 0:
        return "an isolated pcscd needs root"
    for program in ("pcscd", "unshare", "ip"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed"
    if not DRIVER.exists():
        return "the Debian package vsmartcard-vpcd is not installed"
    try:
        import smartcard.scard  # noqa: F401
    except ImportError:
        return "pyscard is not installed"
    return ""


class Pcscd:
    """The daemon. Its socket is always the same: the client library asks for it once in a process."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="optima-pcscd-"))
        (self.directory / "run").mkdir()
        (self.directory / "conf").mkdir()
        (self.directory / "conf/vpcd").write_text(
            f'FRIENDLYNAME "{FAMILY}"\nDEVICENAME /dev/null:{PORT:#x}\nLIBPATH {DRIVER}\nCHANNELID {PORT:#x}\n'
        )
        self.environment = {**os.environ, "PCSCLITE_CSOCK_NAME": str(self.directory / "run/pcscd.comm")}
        os.environ["PCSCLITE_CSOCK_NAME"] = self.environment["PCSCLITE_CSOCK_NAME"]
        self._process: subprocess.Popen[bytes] | None = None
        self._cards: list[Inserted] = []
        self._turn = 0

    def next_reader(self) -> None:
        """Turn to the other reader, and wait until pcscd too has seen that it is empty."""
        from smartcard import scard

        self._turn = 1 - self._turn
        _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_SYSTEM)
        state = scard.SCARD_STATE_UNAWARE
        while not state & scard.SCARD_STATE_EMPTY:
            code, [(_, state, _)] = scard.SCardGetStatusChange(context, int(TIMEOUT_S * 1000), [(self.reader, state)])
            assert code == 0, scard.SCardGetErrorMessage(code)
            state &= ~scard.SCARD_STATE_CHANGED
        scard.SCardReleaseContext(context)

    @property
    def reader(self) -> str:
        """Name of the reader that cards are put into."""
        return READERS[self._turn]

    @property
    def port(self) -> int:
        """Where that reader waits for its card, in the daemon's network."""
        return PORT + self._turn

    def start(self) -> None:
        if self._process is not None:
            return
        run, conf = self.directory / "run", self.directory / "conf"
        Path("/run/pcscd").mkdir(exist_ok=True)
        script = (
            f"ip link set lo up && mount --bind {run} /run/pcscd && exec pcscd --foreground --error --config {conf}"
        )
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(["unshare", "-m", "-n", "bash", "-c", script], stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(run / "pcscd.comm"))
                return
            assert self._process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("pcscd did not start")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        self.take_out()
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(TIMEOUT_S)
            self._process = None
            (self.directory / "run/pcscd.comm").unlink(missing_ok=True)

    def insert(self, card: Card) -> Inserted:
        """Put a card into the reader; seen there up to 400 ms later."""
        inserted = Inserted(card, self._connection(self.port))
        self._cards.append(inserted)
        return inserted

    def insert_process(self, memory: Path, *options: str) -> subprocess.Popen[bytes]:
        """The same with a card that is a program of its own, so that it can be killed; the caller ends it."""
        into_network = ("nsenter", "-t", str(self.pid), "-n")
        program = (sys.executable, "-m", "optima_drivers.pcsc.vpcd", str(memory), "--port", str(self.port))
        return subprocess.Popen([*into_network, *program, *options])

    def take_out(self) -> None:
        """All cards."""
        while self._cards:
            self._cards.pop().remove()

    def _connection(self, port: int) -> socket.socket:
        """To a port in the daemon's network."""
        made: list[socket.socket] = []

        def connect() -> None:  # a thread can go there by itself; what it opened can be used by all
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self.pid}/ns/net").open("rb") as network:
                assert libc.setns(network.fileno(), CLONE_NEWNET) == 0, ctypes.get_errno()
            made.append(socket.create_connection(("127.0.0.1", port), TIMEOUT_S))

        thread = threading.Thread(target=connect)
        thread.start()
        thread.join()
        [connection] = made
        connection.settimeout(None)
        return connection


class Inserted:
    """A card in a reader, on a thread of its own."""

    def __init__(self, card: Card, connection: socket.socket) -> None:
        self._connection = connection
        self._thread = threading.Thread(target=serve, args=(connection, card), daemon=True)
        self._thread.start()

    def remove(self) -> None:
        """Take it out."""
        with contextlib.suppress(OSError):  # it went by itself
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT_S)


@contextmanager
def running() -> Iterator[Pcscd]:
    """One for all tests of this process; skips where there cannot be one."""
    if reason := why_not():
        pytest.skip(reason)
    daemon = Pcscd()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(daemon.directory)
