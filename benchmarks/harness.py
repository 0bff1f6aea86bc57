"""Runs the measuring harness with the daemon as a contestant beside the peers.

    python benchmarks/harness.py HARNESS_DIR goals --quick
    python benchmarks/harness.py HARNESS_DIR run -c our-daemon,floor-c-q1,paho-script -s latency,load --reps 3

HARNESS_DIR is the folder with bench.py. The daemon is the `bridge` of this Python's environment; `our-daemon-slow` is the
same with 10 ms added to every fsync.
"""

import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONTESTANTS = """
[[contestant]]
name = "our-daemon"
cmd = ["{bridge}", "run", "--config", "{{dir}}/bridge.toml"]
setup = ["{python}", "{here}/setup_daemon.py"]
frame = "rdm6300"
qos = 1
durable = true
note = "journal with synchronous=FULL, control API on"

[[contestant]]
name = "our-daemon-slow"
cmd = ["{bridge}", "run", "--config", "{{dir}}/bridge.toml"]
setup = ["{python}", "{here}/setup_daemon.py"]
env = {{ LD_PRELOAD = "{{perf}}/slowsync.so", SLOWSYNC_US = "10000" }}
frame = "rdm6300"
qos = 1
durable = true
note = "the same, fsync +10 ms"
"""


def main() -> None:
    """Write the contestants' file and become the harness."""
    harness, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    bridge = os.environ.get("OPTIMA_BRIDGE_PROGRAM") or str(Path(sys.executable).parent / "bridge")
    ours = Path(tempfile.mkdtemp(prefix="optima-bench-")) / "contestants.toml"
    ours.write_text(CONTESTANTS.format(bridge=bridge, python=sys.executable, here=HERE), encoding="utf-8")
    if arguments[:1] == ["goals"]:
        arguments += ["--ours", "our-daemon", "--slow", "our-daemon-slow"]
    if arguments[:1] in (["goals"], ["run"]) and "--out" not in arguments:
        arguments += ["--out", str(ours.with_name("results.jsonl"))]
    files = ["--file", str(harness / "contestants.toml"), "--file", str(ours)] if arguments[:1] != ["table"] else []
    program = str(harness / "bench.py")
    os.execv(sys.executable, [sys.executable, program, arguments[0], *files, *arguments[1:]])


if __name__ == "__main__":
    main()
