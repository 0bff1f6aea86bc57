"""CPU time of the daemon while its broker is away: nobody listens, nobody answers, no such name.

    python benchmarks/broker_away.py [SECONDS]

Prints percent of one core over SECONDS (10) each, of the real `bridge run` with no devices; the goal is below 1 %.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL_PERCENT = 1.0
START_S = 2.0  # imports and the first tries are not what is measured
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure each case; the exit status is 1 where one is above the goal."""
    duration_s = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    worst = 0.0
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets this port
        cases = {
            "refused": f'host = "127.0.0.1"\nport = {refusing.getsockname()[1]}',
            "refused, TLS": f'host = "127.0.0.1"\nport = {refusing.getsockname()[1]}\n[mqtt.tls]',
            "black hole": f'host = "127.0.0.1"\nport = {silent.getsockname()[1]}',
            "black hole, TLS": f'host = "127.0.0.1"\nport = {silent.getsockname()[1]}\n[mqtt.tls]',
            "no such name": 'host = "broker.invalid"',
        }
        for name, settings in cases.items():
            percent = measure(settings, duration_s)
            worst = max(worst, percent)
            print(f"{name:16} {percent:5.2f} %")
    sys.exit(worst > GOAL_PERCENT)


def measure(settings: str, duration_s: float) -> float:
    """Percent of one core over `duration_s` seconds."""
    with tempfile.TemporaryDirectory(prefix="optima-bench-") as directory:
        file = Path(directory) / "config.toml"
        file.write_text(
            f'[store]\nsite = "bench"\nnode = "pc1"\n[mqtt]\n{settings}\n'
            f'[journal]\ndirectory = "{directory}/state"\n[api]\nsocket = "{directory}/api.sock"\n[log]\nlevel = "error"\n',
            encoding="utf-8",
        )
        with subprocess.Popen([Path(sys.executable).with_name("bridge"), "run", "--config", file]) as bridge:
            try:
                time.sleep(START_S)
                before_s = cpu_s(bridge.pid)
                time.sleep(duration_s)
                return 100 * (cpu_s(bridge.pid) - before_s) / duration_s
            finally:
                bridge.terminate()


def cpu_s(pid: int) -> float:
    """User and system time of a process and its threads (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


if __name__ == "__main__":
    main()
