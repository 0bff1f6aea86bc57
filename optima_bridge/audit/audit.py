"""The audit log for the event loop: a thread that writes, the head told to whom it concerns, trouble reported once known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from optima_bridge.audit.actor import Actor
from optima_bridge.audit.check import Verdict
from optima_bridge.audit.log import AuditLog, judge
from optima_bridge.audit.record import Head, Scalar
from optima_bridge.errors import AuditError

MAX_WAITING = 256  # records, while the disk hangs
NOTE_S = 2.0  # a hanging disk holds up whoever only notes something for so long

T = TypeVar("T")


class Audit:
    """The log of one daemon.

    Args:
        directory: of the state; the log is opened, and taken from other processes, with the first record.
        on_head: called on the loop with the newest record, whenever there is a newer one.
        on_problem: called on the loop with what is wrong now; None: nothing.
    """

    def __init__(
        self, directory: Path, on_head: Callable[[Head], None], on_problem: Callable[[AuditError | None], None]
    ) -> None:
        self._log = AuditLog(directory, Actor.this("daemon"))
        self._on_head = on_head
        self._on_problem = on_problem
        self._thread = ThreadPoolExecutor(1, "audit")  # one: records come in the order of the calls
        self._waiting = 0
        self._failing = False
        self._told: Head | None = None
        self._judging = asyncio.Lock()

    @property
    def head(self) -> Head | None:
        """Of the last record; None before the first."""
        return self._log.head

    @property
    def path(self) -> Path:
        """Of the file."""
        return self._log.path

    async def append(self, action: str, who: Actor, *, device: str = "", job: str = "", **data: Scalar) -> Head:
        """Write a record; it survives a power cut when this returns. Cancelled, the record is written all the same.

        For what must not be done without a record: do it afterwards, and not at all where this raises.

        Args:
            action: of record.ACTIONS.
            data: further facts; no secret, and of a certificate or key only its fingerprint.

        Raises:
            AuditError: it is not written.
        """
        return await self._run(partial(self._log.append, action, who, device=device, job=job, **data))

    async def note(
        self,
        action: str,
        who: Actor,
        *,
        device: str = "",
        job: str = "",
        within_s: float = NOTE_S,
        **data: Scalar,
    ) -> None:
        """Write a record of what has happened already: never raises, waits a little. Trouble goes to `on_problem`."""
        try:
            async with asyncio.timeout(within_s):
                await self.append(action, who, device=device, job=job, **data)
        except TimeoutError:
            self._report(AuditError(f"{self.path} takes no record within {within_s:g} s", cause="the disk hangs"))
        except AuditError:
            pass  # reported already

    async def mend(self) -> None:
        """Where the last record failed, see whether the log can be written again."""
        if self._failing:
            with suppress(AuditError, TimeoutError):  # reported already
                async with asyncio.timeout(NOTE_S):
                    await self._run(self._log.open)

    async def snapshot(self) -> tuple[int, Head]:
        """How many bytes of the file are records that were confirmed, and the last of these.

        Raises:
            AuditError: the log cannot be opened.
        """
        return await self._run(self._log.snapshot)

    async def verify(self, kept: Head | None = None) -> Verdict:
        """Check the whole log, against the head that this process knows, or one that somebody kept.

        Raises:
            AuditError: the log cannot be read.
        """
        async with self._judging:  # reading is work: one at a time
            size_bytes, head = await self.snapshot()
            verdict = await asyncio.to_thread(self._judge, size_bytes, kept or head)
        if kept is None:
            self._log.broken = verdict.error(str(self.path))
            self._report(self._log.problem)
        return verdict

    async def close(self, timeout_s: float) -> None:
        """Let another process have the log, after what waits was written. Safe to call twice."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(self._thread.submit(self._log.close))
        except (TimeoutError, RuntimeError):  # the disk hangs; it was closed before
            pass
        self._thread.shutdown(wait=False)

    def _judge(self, size_bytes: int, kept: Head) -> Verdict:
        try:
            return judge(self.path, size_bytes, kept)
        except OSError as error:
            raise AuditError(f"{self.path} cannot be read: {error.strerror or error}") from error

    async def _run(self, work: Callable[[], T]) -> T:
        """Do `work` on the thread. It is done even if nobody waits any more."""
        if self._waiting >= MAX_WAITING:
            raise AuditError(f"{self._waiting} records wait for {self.path}", cause="the disk hangs")
        self._waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, work)
        running.add_done_callback(self._done)
        return await asyncio.shield(running)

    def _done(self, running: asyncio.Future[T]) -> None:
        self._waiting -= 1
        error = None if running.cancelled() else running.exception()
        if isinstance(error, AuditError):
            self._report(error)
        elif error is None:
            self._report(self._log.problem)
            if self._log.head is not None and self._log.head != self._told:
                self._told = self._log.head  # the thread may be ahead of the loop
                self._on_head(self._told)

    def _report(self, error: AuditError | None) -> None:
        self._failing = error is not None and error is not self._log.problem
        self._on_problem(error)
