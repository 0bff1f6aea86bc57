"""Writes the daemon's configuration for one run of the harness; called by it once before the first start.

The readers send each number once, so they are configured as touch readers (id12la), and the store opts in to raw numbers,
because the harness recognises events by them. Everything else is the default: journal on, control API on.
"""

import os
from pathlib import Path

directory = Path(os.environ["BENCH_DIR"])
readers = os.environ["BENCH_READERS"].split(",")
lines = [
    '[store]\nsite = "bench"\nnode = "pc1"',
    f'[mqtt]\nhost = "{os.environ["BENCH_HOST"]}"\nport = {os.environ["BENCH_PORT"]}',
    '[identifiers]\npublish = "raw"',
    f'[journal]\ndirectory = "{directory}/state"',
    f'[api]\nsocket = "{directory}/api.sock"',
    '[log]\nlevel = "warning"',
]
lines += [
    f'[devices.reader-{number}]\ndriver = "id12la"\nport = "{path}"\nrepeat_ms = 0'
    for number, path in enumerate(readers)
]
(directory / "bridge.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
