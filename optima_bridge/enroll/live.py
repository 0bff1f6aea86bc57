"""A job that somebody works on or watches: its records so far, and those who wait for the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec

from optima_bridge.enroll.jobs import Job
from optima_bridge.enroll.records import Document
from optima_bridge.enroll.work import Stop

Kept = Callable[[Job, int, Document], None]
"""Called with the job and its newest numbered record, to be kept on disk."""


class LiveJob:
    """One job in memory.

    Attributes:
        job: as it is now.
        stop: tells the work to stop.
    """

    def __init__(self, job: Job, kept: Kept, records: list[tuple[int, Document]] | None = None) -> None:
        self.job = job
        self.stop = Stop()
        self._kept = kept
        self._records = records or []
        self._progress: Document | None = None
        self._changed: set[asyncio.Event] = set()

    def tell(self, record: Document) -> None:
        """Take a record of the work; all but progress get a number and are kept."""
        if record["type"] == "progress":
            self._progress = record
            self.change(done_bytes=record["done_bytes"], size_bytes=record["size_bytes"])
        else:
            if record["type"] == "phase":
                self._progress = None
                self.change(phase=record["phase"], done_bytes=0, size_bytes=0)
            seq = self._records[-1][0] + 1 if self._records else 1
            self._records.append((seq, record))
            self._kept(self.job, seq, record)
        for changed in self._changed:
            changed.set()

    def change(self, **facts: object) -> None:
        """Note these facts about the job; the next record has them kept."""
        self.job = msgspec.structs.replace(self.job, **facts)

    async def watch(self, after: int) -> AsyncGenerator[Document, None]:
        """Records behind number `after`, each with its ``seq``, and progress, which has none; ends with the result."""
        changed = asyncio.Event()
        self._changed.add(changed)
        progress = None
        try:
            while True:
                changed.clear()
                for seq, record in [it for it in self._records if it[0] > after]:
                    after = seq
                    yield {**record, "seq": seq}
                    if record["type"] == "result":
                        return
                if self._progress is not None and self._progress is not progress:
                    progress = self._progress
                    yield progress
                await changed.wait()
        finally:
            self._changed.discard(changed)
