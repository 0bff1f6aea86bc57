"""How long a record of the audit log takes to be on disk, and the check of the whole log for each record in it.

    python benchmarks/audit.py [DIRECTORY]

DIRECTORY is on the disk that is meant; default: that of temporary files.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from optima_bridge.audit import Actor, AuditLog
from optima_bridge.audit.log import judge

RECORDS = 500
COPIES = 100_000  # records of the long log


def main(directory: Path) -> None:
    me = Actor(via="socket", uid=0, login_uid=os.getuid(), pid=os.getpid(), program="bridge")
    times_s = []
    with AuditLog(directory, me) as log:
        for _ in range(RECORDS):
            begun_s = time.perf_counter()
            log.append("api.requested", me, asked="POST /v1/replay")
            times_s.append(time.perf_counter() - begun_s)
        assert log.head is not None
        cuts = statistics.quantiles(times_s, n=100)
        print(f"append   p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms")
        size_bytes = log.path.stat().st_size
        print(f"record   {size_bytes / RECORDS:.0f} bytes")
        begun_s = time.process_time()
        for _ in range(COPIES // RECORDS):
            assert judge(log.path, size_bytes, log.head).findings == ()
        print(f"check    {(time.process_time() - begun_s) / COPIES * 1e6:.1f} µs a record")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as made:
        main(Path(made))
