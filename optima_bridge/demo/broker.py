"""A private broker for the demo: mosquitto where it is installed, else the embedded one (extra ``broker``), else none."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from optima_bridge.errors import BrokerUnavailable, UsageError

START_TIMEOUT_S = 10.0


class Broker(msgspec.Struct, frozen=True):
    """Where the demo's broker is, and the program to run for it (empty: somebody else's)."""

    host: str
    port: int
    name: str
    protocol: str
    program: tuple[str, ...] = ()


def choose(wish: str, directory: Path) -> Broker | None:
    """The broker for ``--broker`` auto, embedded, none or mqtt://host:port; None for none.

    Raises:
        UsageError: not one of those. BrokerUnavailable: ``embedded`` without its extra.
    """
    if wish == "none":
        return None
    if wish.startswith("mqtt://"):
        url = urlsplit(wish)
        return Broker(url.hostname or "127.0.0.1", url.port or 1883, wish, "5")
    if wish not in ("auto", "embedded"):
        raise UsageError(f"--broker {wish} is not one of auto, embedded, none, mqtt://HOST:PORT")
    port = free_port()
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if mosquitto and wish == "auto":
        configuration = directory / "mosquitto.conf"
        configuration.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest none\n", encoding="ascii"
        )
        return Broker("127.0.0.1", port, "mosquitto", "5", (mosquitto, "-c", str(configuration)))
    if importlib.util.find_spec("amqtt"):
        program = (sys.executable, "-m", "optima_bridge.demo.embedded", str(port))
        return Broker("127.0.0.1", port, "embedded", "3.1.1", program)
    if wish == "embedded":
        raise BrokerUnavailable(
            "the embedded broker is not installed",
            cause="it comes with an extra, so that a store PC does not carry it",
            next_step="pip install 'optima-bridge[broker]', or: bridge demo --broker none",
        )
    return None


async def wait_until_up(broker: Broker) -> None:
    """Return once something listens there.

    Raises:
        BrokerUnavailable: nothing listens in time.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(broker.host, broker.port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return
    except TimeoutError as error:
        raise BrokerUnavailable(f"nothing listens on {broker.host}:{broker.port}") from error


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
