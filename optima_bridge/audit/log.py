"""The audit log on disk: ``audit.ndjson``, its head in ``audit.head``, and one process that writes.

Nothing is ever rewritten. A record is on disk when `append` returns; then the head, whole or not at all. Before each record
the file must look as this process left it. Where it does not, as at the start, after a full disk, or when somebody changed
the file meanwhile, it is read whole, and the log goes on from the record that was last known: a torn line stays and is
spoken of by the record behind it, and a cut end leaves a hole in the numbers for ever.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from optima_bridge.audit.actor import Actor
from optima_bridge.audit.check import TORN_END, Gap, Verdict, check, lines
from optima_bridge.audit.record import (
    ACTIONS,
    NO_DATA,
    ZERO,
    Data,
    Entry,
    Head,
    Scalar,
    clean,
    decode_head,
    encode,
    encode_head,
)
from optima_bridge.errors import AuditBroken, AuditError, JournalError
from optima_bridge.journal.lock import lock_directory
from optima_bridge.journal.recovery import sync_directory

FILE_NAME, HEAD_NAME = "audit.ndjson", "audit.head"
MODE = 0o600
UNKNOWN = -1


class AuditLog:
    """The log in a state directory. Blocking; any thread may call, one at a time.

        me = Actor.this("standalone")
        with AuditLog(directory, me) as audit:
            audit.append("enroll.begun", me, device="till-3", job="7f3a")

    Args:
        opener: stands in what the log says of itself.

    Attributes:
        path: of the file.
        head: of the last record; None until the log was opened.
        broken: the log was changed; records are written all the same.
    """

    def __init__(self, directory: Path, opener: Actor) -> None:
        self.path = directory / FILE_NAME
        self.head: Head | None = None
        self.broken: AuditBroken | None = None
        self._opener = opener
        self._head_path = directory / HEAD_NAME
        self._headless: AuditError | None = None
        self._lock: int | None = None
        self._size_bytes = UNKNOWN  # of the file as this process left it
        self._lost = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Take the log, and see that it is in order; append() does it, too.

        Raises:
            AuditError: another process has it, or the disk does not do its part.
        """
        with self._opened():
            pass

    def append(self, action: str, who: Actor, *, device: str = "", job: str = "", **data: Scalar) -> Head:
        """Write a record; when this returns it survives a power cut. Whoever must not act without a record acts afterwards.

        Args:
            action: of ACTIONS.
            data: further facts; no secret, and of a certificate or key only its fingerprint.

        Raises:
            AuditError: it is not written.
        """
        assert action in ACTIONS, action
        try:
            with self._opened() as file:
                return self._add(file, action, who, device, job, data)
        except AuditError:
            self._lost += 1
            self._size_bytes = UNKNOWN
            raise

    def snapshot(self) -> tuple[int, Head]:
        """How long the file is now, and with which record it ends. Raises as open() does."""
        if self.head is None:
            self.open()
        assert self.head is not None
        try:
            return self.path.stat().st_size, self.head
        except OSError:  # it was taken away: nothing is left of it
            return 0, self.head

    @property
    def problem(self) -> AuditError | None:
        """What is wrong, and keeps no record from being written."""
        return self.broken or self._headless

    def close(self) -> None:
        """Let another process have it. Safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._size_bytes = None, UNKNOWN

    # -- inside

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, ready for the next record."""
        try:
            if self._lock is None:
                self._lock = self._taken()
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            try:
                if not self._is_as_left(file):
                    self._take_up(file)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise AuditError(f"the audit log {self.path} cannot be written: {error.strerror or error}") from error

    def _taken(self) -> int:
        try:
            return lock_directory(self.path.parent, "audit log")
        except JournalError as error:
            raise AuditError(error.what, cause=error.cause, next_step=error.next_step, **error.data) from error

    def _is_as_left(self, file: int) -> bool:
        size_bytes = os.fstat(file).st_size
        return size_bytes == self._size_bytes and (not size_bytes or os.pread(file, 1, size_bytes - 1) == b"\n")

    def _take_up(self, file: int) -> None:
        """Read the file, and write down what is not as it should be at its end."""
        size_bytes = os.fstat(file).st_size
        kept = self.head or read_head(self._head_path)
        verdict = judge(self.path, size_bytes, kept)
        found, torn = verdict.head, verdict.torn
        disturbed = self._size_bytes != UNKNOWN  # somebody wrote to it while it was ours
        self.broken = None if verdict.only_torn else verdict.error(str(self.path))
        self.head = kept if kept is not None and kept.n >= found.n else found
        if kept is None and not size_bytes:
            self._keep_head(Head(0, ZERO))  # from now on a file that is away is one that was taken away
        elif disturbed or kept is None or str(self.head) != str(found):
            facts: Data = {"kept": str(kept) if kept else "", "found": str(found)}
            self._add(file, "audit.broken", self._opener, data=facts, torn=torn)
        elif torn:
            self._add(file, "audit.torn", self._opener, torn=torn)
        if self._lost:
            self._add(file, "audit.lost", self._opener, data={"count": self._lost})
            self._lost = 0
        self._size_bytes = os.fstat(file).st_size

    def _add(
        self,
        file: int,
        action: str,
        who: Actor,
        device: str = "",
        job: str = "",
        data: Data = NO_DATA,
        torn: Gap | None = None,
    ) -> Head:
        assert self.head is not None
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line, head = encode(
            Entry(
                n=self.head.n + 1,
                time=now,
                action=action,
                who=who.named(),
                device=device,
                job=job,
                data=clean(data),
                torn=torn.digest if torn else "",
                prev=self.head.hash,
            )
        )
        self._write(file, line if torn is None or torn.whole else TORN_END + line)
        self._keep_head(head)
        return head

    def _write(self, file: int, line: bytes) -> None:
        """Have all of `line` on disk, or what is there already stays as it is."""
        before = os.fstat(file).st_size
        self._size_bytes = UNKNOWN
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            with suppress(OSError):  # not with `chattr +a`: then it is a torn line
                os.ftruncate(file, before)
            raise
        if not before:
            sync_directory(self.path.parent)
        self._size_bytes = before + len(line)

    def _keep_head(self, head: Head) -> None:
        """The record is on disk: a head that cannot follow is a matter for a report, and follows with the next one."""
        self.head = head
        new = self._head_path.with_suffix(".head.new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE), "wb") as file:
                file.write(encode_head(head))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._head_path)
            self._headless = None
        except OSError as error:
            self._headless = AuditError(f"{self._head_path} cannot be written: {error.strerror or error}")


def judge(path: Path, size_bytes: int, kept: Head | None) -> Verdict:
    """Check the first `size_bytes` of the file; one that is absent is empty."""
    try:
        with path.open("rb") as file:
            return check(lines(file, size_bytes), kept)
    except FileNotFoundError:
        return check([], kept)


def read_head(path: Path) -> Head | None:
    """The head that is kept in a file; None where there is none, or something else."""
    try:
        return decode_head(path.read_bytes())
    except FileNotFoundError:
        return None
