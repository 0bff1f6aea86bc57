"""Readers of mixed kinds on one daemon: python benchmarks/mixed.py [idle | isolation | KIND ...]

    idle        CPU of the daemon, % of one core, with 16 and with 64 readers of which nothing happens
    isolation   the delay of one reader's events while another floods, is unplugged or hangs, against its delay by itself
    KIND ...    CPU of 16 readers of one kind, such as osdp

The devices are the drivers' simulators, on ptys and behind a terminal server, in a process of their own; with default
settings, the journal on and the control API on, no broker.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import aiomqtt

from benchmarks.pace import pace
from optima_bridge.link import Line
from optima_bridge.link.ptys import PtyServer
from optima_drivers.contacts.simulator import SwitchSimulator
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.keylock.simulator import SerialKeylockSimulator
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.osdp.simulator import OsdpSimulator
from optima_drivers.pn532.simulator import Pn532Simulator
from optima_drivers.rfid125.codec import encode
from optima_drivers.rfid125.simulator import Rfid125Simulator
from tests.support import Mosquitto
from tests.terminal_server import TerminalServer

SECONDS = float(os.environ.get("SECONDS", "30"))
TAPS = int(os.environ.get("TAPS", "200"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CTS = Line.CTS
KINDS: dict[str, tuple[Callable[[], Any] | None, str]] = {
    "rdm6300": (Rfid125Simulator, ""),
    "ds2480b": (Ds2480bSimulator, ""),
    "keylock-serial": (SerialKeylockSimulator, 'profile = "ultimate"'),
    "osdp": (OsdpSimulator, "plain_text = true"),
    "pn532": (Pn532Simulator, ""),
    "contacts": (None, 'keylock = { supervisor = "cts" }'),
    "loopback": (LoopbackSimulator, ""),
}
SIXTEEN = (
    ["rdm6300"] * 5 + ["ds2480b"] * 4 + ["keylock-serial"] * 2 + ["osdp", "pn532", "contacts", "loopback", "loopback"]
)
CONFIG = """
[store]
site = "bench"
node = "pc1"
[mqtt]
enabled = false
[identifiers]
publish = "raw"
[journal]
directory = "{directory}/state"
[api]
socket = "{directory}/api.sock"
[log]
format = "json"
"""


# -- the store's devices, in a process of their own: one line of JSON with the ports, then an order a line --


async def simulate(kinds: list[str]) -> None:
    async with AsyncExitStack() as stack:
        ports = []
        devices = []
        for kind in kinds:
            make, _ = KINDS[kind]
            if make is None:
                server = await stack.enter_async_context(TerminalServer())
                switch = SwitchSimulator({CTS})
                server.port.on_outputs = lambda dtr, rts, switch=switch: switch.outputs(dtr=dtr, rts=rts)
                switch.attach(server.set_lines)
                ports.append(server.url)
                devices.append((switch, None))
            else:
                simulator = make()
                pty = await stack.enter_async_context(PtyServer(simulator))
                if hasattr(simulator, "attach"):
                    simulator.attach(pty.send)
                ports.append(pty.path)
                devices.append((simulator, pty))
        print(json.dumps(ports), flush=True)
        stdin = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        await stdin.read()


@contextmanager
def daemon(kinds: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The daemon with these devices, all of them up."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        devices = subprocess.Popen(
            [sys.executable, __file__, "--simulate", *kinds], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert devices.stdout is not None
        ports = json.loads(devices.stdout.readline())
        tables = [
            f'[devices.d{number}]\ndriver = "{kind}"\nport = "{port}"\n{KINDS[kind][1]}\n'
            for number, (kind, port) in enumerate(zip(kinds, ports, strict=True))
        ]
        config = directory / "bridge.toml"
        config.write_text(CONFIG.format(directory=directory) + "".join(tables))
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "optima_bridge.cli", "run", "--config", str(config)], stdout=log, stderr=log
            )
        try:
            end_s = time.monotonic() + 20
            while (directory / "log").read_text().count('"link.opened"') < len(kinds):
                if time.monotonic() > end_s or process.poll() is not None:
                    sys.exit((directory / "log").read_text()[-3000:])
                time.sleep(0.1)
            time.sleep(3)
            yield process, directory
        finally:
            process.terminate()
            process.wait()
            devices.stdin and devices.stdin.close()
            devices.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(kinds: list[str]) -> float:
    """% of one core."""
    with daemon(kinds) as (process, _):
        before = cpu_s(process.pid)
        time.sleep(SECONDS)
        return (cpu_s(process.pid) - before) / SECONDS * 100


# -- one reader's delay beside another one that misbehaves --


class Silent:
    """A device that takes everything and says nothing."""

    def receive(self, data: bytes) -> bytes:
        del data
        return b""


async def disturb(mode: str, path: str) -> None:
    """A 1-Wire adapter at `path`: quiet, flooding at 115200 baud, unplugged each half second, or hanging after its start."""
    adapter = Ds2480bSimulator()
    async with PtyServer(adapter, symlink=Path(path)) as server:
        adapter.attach(server.send)
        print(json.dumps([path]), flush=True)
        await asyncio.sleep(2)
        noise = os.urandom(230)
        while True:
            await asyncio.sleep(0.5 if mode == "unplug" else 0.02)
            if mode == "flood":
                server.send(noise)
            elif mode == "unplug":
                server.unplug()
                await asyncio.sleep(0.5)
                server.replug()
            elif mode == "hang":
                server._device = Silent()


def isolation() -> None:
    """Print the delay from a card's last byte to the broker's client, with the other reader quiet and not."""
    delays: dict[str, list[float]] = {mode: [] for mode in ("quiet", "flood", "unplug", "hang")}
    for _ in range(ROUNDS):
        for mode, delays_ms in delays.items():
            delays_ms.extend(asyncio.run(delayed(mode)))
    quiet = statistics.median(delays["quiet"])
    for mode, delays_ms in delays.items():
        p50, p99 = statistics.median(delays_ms), statistics.quantiles(delays_ms, n=100)[98]
        print(f"other reader {mode:7} p50 {p50:.3f} ms ({p50 / quiet - 1:+.1%}), p99 {p99:.3f} ms of {len(delays_ms)}")


async def delayed(mode: str) -> list[float]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        broker = Mosquitto(directory / "broker")
        broker.start()
        other = subprocess.Popen([sys.executable, __file__, "--disturb", mode, name + "/other"], stdout=subprocess.PIPE)
        assert other.stdout is not None
        other.stdout.readline()
        async with PtyServer(Silent()) as card:
            daemon = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "optima_bridge.cli",
                    "run",
                    "--config",
                    str(configured(directory, broker, card)),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                return await taps(broker, card)
            finally:
                for process in (daemon, other):
                    process.terminate()
                    process.wait()
                broker.stop()


def configured(directory: Path, broker: Mosquitto, card: PtyServer) -> Path:
    config = directory / "bridge.toml"
    config.write_text(
        CONFIG.format(directory=directory).replace("enabled = false", f"port = {broker.port}")
        + f'[devices.card]\ndriver = "id12la"\nport = "{card.path}"\nrepeat_ms = 0\n'
        + f'[devices.key]\ndriver = "ds2480b"\nport = "{directory}/other"\n'
    )
    return config


async def taps(broker: Mosquitto, card: PtyServer) -> list[float]:
    """Milliseconds of each tap."""
    delays_ms = []
    async with aiomqtt.Client("127.0.0.1", broker.port) as client:
        await client.subscribe("optima/v1/bench/pc1/evt/card/+", qos=0)
        await asyncio.sleep(3)
        messages = aiter(client.messages)
        for number in range(TAPS):
            await asyncio.sleep(random.uniform(0.02, 0.06))
            begun_s = time.perf_counter()
            card.send(encode(f"{number:010X}", cr_lf=True))
            async with asyncio.timeout(5):
                await anext(messages)
            delays_ms.append((time.perf_counter() - begun_s) * 1000)
    return delays_ms


def main(words: list[str]) -> None:
    if words[:1] == ["--simulate"]:
        asyncio.run(simulate(words[1:]))
        return
    if words[:1] == ["--disturb"]:
        asyncio.run(disturb(*words[1:]))
        return
    print(pace(), flush=True)
    for word in words or ["idle", "isolation"]:
        if word == "idle":
            for kinds, goal in ((SIXTEEN, 1), (SIXTEEN * 4, 3)):
                print(f"{len(kinds)} readers idle: {idle(kinds):.2f} % of one core, goal {goal} %", flush=True)
        elif word == "isolation":
            isolation()
        else:
            print(f"16 × {word} idle: {idle([word] * 16):.2f} %", flush=True)
    print(pace())


if __name__ == "__main__":
    main(sys.argv[1:])
