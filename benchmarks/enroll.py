"""How long `bridge enroll` takes as a person waits for it: the whole command, through the daemon, on a loopback device.

    python benchmarks/enroll.py [REPETITIONS]

Starts the daemon in a temporary directory with one loopback controller behind a pty, makes a CA, and enrolls two real
certificates in turn. Prints the median and the longest wall time of the command, and of `bridge status` beside it, which is
the floor of any command.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.pace import pace
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.possession import unproven
from optima_bridge.enroll.pki.profile import Credential
from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator

BRIDGE = (sys.executable, "-m", "optima_bridge.cli")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""What is installed is compiled, so what is measured must be."""
GOAL_S = 0.5


async def timed(*words: str) -> float:
    """Wall time of a command that must end well."""
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *BRIDGE, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    _, err = await process.communicate()
    if process.returncode:
        sys.exit(f"bridge {' '.join(words)}: status {process.returncode}\n{err.decode()}")
    return time.perf_counter() - begun


def certificates(directory: Path) -> list[Path]:
    """Two that the CA of the store has issued."""
    now = datetime.now(UTC)
    authority = CertificateAuthority.create(directory / "ca", "Retail", "s1042", now)
    files = []
    for number in (7, 8):
        about = Credential(
            organization="Retail", store="s1042", number=number, identifier=bytes(8), device_serial="till-3"
        )
        key = unproven(ec.generate_private_key(ec.SECP256R1()).public_key())
        files.append(directory / f"{number}.der")
        files[-1].write_bytes(authority.issue(key, about, now).public_bytes(Encoding.DER))
    return files


async def main(repetitions: int, directory: Path) -> None:
    files = certificates(directory)
    config, socket = directory / "config.toml", directory / "api.sock"
    config.write_text(
        f'[store]\nsite = "bench"\n[mqtt]\nenabled = false\n[journal]\ndirectory = "{directory}"\n'
        f'[api]\nsocket = "{socket}"\n[devices.till-3]\ndriver = "loopback"\nport = "{directory / "port"}"\n'
    )
    simulator = LoopbackSimulator(serial="till-3")
    async with PtyServer(simulator, symlink=directory / "port"):
        daemon = await asyncio.create_subprocess_exec(
            *BRIDGE, "run", "--config", str(config), stderr=asyncio.subprocess.DEVNULL, env=ENVIRONMENT
        )
        try:
            given = ("--socket", str(socket))
            await timed("status", *given, "--wait", "ready")
            floor = [await timed("status", *given) for _ in range(repetitions)]
            whole = [
                await timed("enroll", "till-3", *given, "--cert", str(files[number % 2]), "--replace")
                for number in range(repetitions)
            ]
        finally:
            daemon.terminate()
            await daemon.wait()
    for name, times_s in (("bridge status", floor), ("bridge enroll", whole)):
        print(f"{name:14} median {statistics.median(times_s):.3f} s   longest {max(times_s):.3f} s")
    print(pace())
    median_s = statistics.median(whole)
    print(f"goal: whole bridge enroll on loopback <= {GOAL_S} s: {'ok' if median_s <= GOAL_S else 'MISSED'}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15, Path(made)))
