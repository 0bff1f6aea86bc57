"""One beat for all that is polled: readers that wait for the same moment wake the process once, not once each.

Waking an idle machine costs several times what a poll does; with 64 readers that is most of the daemon's CPU.
"""

from __future__ import annotations

NS_PER_MS = 1_000_000
AT_REST = 2
"""What is polled is polled so many times less often while there is nothing that could be revoked."""


def next_beat_ns(now_ns: int, interval_ms: int) -> int:
    """The next multiple of the interval; where that is in less than a quarter of it, the one after.

    Args:
        now_ns: of the monotonic clock that everybody shares.
        interval_ms: 1 or more.
    """
    interval_ns = interval_ms * NS_PER_MS
    left_ns = interval_ns - now_ns % interval_ns
    return now_ns + (left_ns if left_ns * 4 >= interval_ns else left_ns + interval_ns)
