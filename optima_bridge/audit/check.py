"""Whether an audit log is whole: one pass over its lines, with one record looked ahead; no more in memory than a line.

A record *fits* when it has the next number and the hash of the record before. Where one does not, what follows it tells
what was done: if the next one fits, this one was put in; if its number is right, the one before is not what it was; if its
number is too high, records are missing. What cannot be seen from the chain is a cut end: that needs a head kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from hashlib import sha256
from itertools import groupby
from typing import BinaryIO

import msgspec

from optima_bridge.audit.record import ZERO, Head, Link, link
from optima_bridge.errors import AuditBroken

MAX_LINE_BYTES = 64 << 10  # more than any record has
MAX_FINDINGS = 1000
TORN_END = b"~\n"
"""Ends a torn line before the next record: a newline alone could make a record of it that lacked nothing else."""

Piece = tuple[int, bytes]
"""Number of the line, and its bytes; a line that is too long comes in several pieces."""


class Kind(StrEnum):
    """What was done to the log."""

    EDITED = "edited"
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    TORN = "torn"


class Finding(msgspec.Struct, frozen=True):
    """A line that does not belong where it is, from 1."""

    line: int
    kind: Kind
    what: str


class Gap(msgspec.Struct, frozen=True):
    """Lines in a row that are no records.

    Attributes:
        digest: SHA-256 of their bytes, the last one ended with TORN_END where it had no end.
        whole: whether the last one has its newline.
    """

    line: int
    digest: str
    whole: bool


class Verdict(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        head: of the last record that belongs to the chain.
        records: how many belong to it.
        findings: the first of them in the order of the lines; empty: nothing is wrong.
        torn: what stands behind the last record and is none.
        marked: torn places that a later record speaks of, as it should be.
    """

    head: Head
    records: int
    findings: tuple[Finding, ...]
    torn: Gap | None
    marked: int

    @property
    def only_torn(self) -> bool:
        """Whether nothing is wrong but what a power cut may leave."""
        return all(finding.kind is Kind.TORN for finding in self.findings)

    def document(self, compared: str) -> dict[str, object]:
        """A verdict without findings, for programs; `compared` says with which head: known, given, kept, none."""
        facts = {"records": self.records, "head": msgspec.to_builtins(self.head), "torn_marked": self.marked}
        return {"schema": "optima.audit-verify/1", "ok": True, **facts, "compared": compared}

    def error(self, name: str) -> AuditBroken | None:
        """The findings as an error; None: there are none."""
        if not self.findings:
            return None
        first, more = self.findings[0], len(self.findings) - 1
        return AuditBroken(
            f"{name}: line {first.line} {first.kind}: {first.what}" + (f"; {more} more" if more else ""),
            line=first.line,
            kind=str(first.kind),
            findings=[{"line": it.line, "kind": str(it.kind), "what": it.what} for it in self.findings[:20]],
        )


def lines(file: BinaryIO, size_bytes: int) -> Iterator[Piece]:
    """The lines in the next `size_bytes` of `file`."""
    number = 1
    while size_bytes > 0 and (piece := file.readline(min(size_bytes, MAX_LINE_BYTES))):
        size_bytes -= len(piece)
        yield number, piece
        number += piece.endswith(b"\n")


def check(pieces: Iterable[Piece], kept: Head | None = None) -> Verdict:
    """Judge the lines of a log.

    Args:
        kept: the log must have this record; without it, a cut end does not show.
    """
    walk = _Walk(kept)
    items = _items(pieces)
    line, item = next(items, (0, None))
    while item is not None:
        next_line, following = next(items, (0, None))
        walk.take(line, item, following)
        line, item = next_line, following
    return walk.verdict()


def _items(pieces: Iterable[Piece]) -> Iterator[tuple[int, Link | Gap]]:
    """Records, and what stands between them."""
    for is_record, run in groupby(((number, piece, link(piece)) for number, piece in pieces), _is_record):
        if is_record:
            yield from ((number, found) for number, _, found in run if found is not None)
            continue
        digest, begins, last = sha256(), 0, b""
        for number, piece, _ in run:
            begins, last = begins or number, piece
            digest.update(piece)
        whole = last.endswith(b"\n")
        if not whole:
            digest.update(TORN_END)
        yield begins, Gap(begins, digest.hexdigest(), whole)


def _is_record(line: tuple[int, bytes, Link | None]) -> bool:
    return line[2] is not None


class _Walk:
    """How far the chain goes, and what did not fit."""

    def __init__(self, kept: Head | None) -> None:
        self._kept = kept
        self._kept_line, self._kept_hash = 0, ""  # where the kept record should be, and what is there
        self._tip = Link(0, "", "", ZERO)  # as if there were a record before the first
        self._n, self._hash = 0, ZERO  # of the tip; after a record that cannot be read its number, and an empty hash
        self._line = 0
        self._records = self._marked = 0
        self._torn: Gap | None = None
        self._in_gap = False
        self._found: list[Finding] = []
        self._holes: list[tuple[Finding, range]] = []
        self._strays: list[tuple[Finding, Link]] = []

    def take(self, line: int, item: Link | Gap, following: Link | Gap | None) -> None:
        """The next item of the log, and the one behind it."""
        if isinstance(item, Gap):
            self._take_gap(item, following)
        else:
            if item.torn and not self._in_gap:
                self._find(line, Kind.MISSING, f"the torn bytes that record {item.n} speaks of are not before it")
            self._take_record(line, item, following)
        self._in_gap = isinstance(item, Gap)

    def _take_gap(self, gap: Gap, following: Link | Gap | None) -> None:
        if not isinstance(following, Link):
            self._torn = gap
        elif following.torn == gap.digest:
            self._marked += 1
        elif self._fits(following):
            kind = Kind.EDITED if following.torn else Kind.INSERTED
            self._find(gap.line, kind, f"this is no record, and stands before record {following.n}")
        else:
            self._find(gap.line, Kind.EDITED, f"this is no record; record {self._n + 1} belongs here")
            self._n, self._hash = max(self._n, following.n - 1), ""

    def _take_record(self, line: int, item: Link, following: Link | Gap | None) -> None:
        after = following if isinstance(following, Link) else None
        if self._fits(item):
            self._accept(line, item)
        elif after is not None and self._fits(after):
            self._stray(line, item)
        elif item.n == self._n + 1:
            what = f"record {item.n} was written behind another record {item.n - 1} than this"
            self._find(max(self._line, 1), Kind.EDITED, what)
            self._accept(line, item)
        elif item.n > self._n:
            gone = range(self._n + 1, item.n)
            names = f"record {gone[0]} is" if len(gone) == 1 else f"records {gone[0]} to {gone[-1]} are"
            finding = self._find(line, Kind.MISSING, f"{names} not before record {item.n}")
            self._holes.append((finding, gone))
            del self._holes[MAX_FINDINGS:]
            self._accept(line, item)
        elif item.n == self._tip.n and after is not None and (after.n, after.prev) == (item.n + 1, item.hash):
            self._find(self._line, Kind.INSERTED, f"record {item.n + 1} was written behind another record {item.n}")
            self._accept(line, item)
        else:
            self._stray(line, item)

    def verdict(self) -> Verdict:
        """After the last item."""
        self._look_at_end()
        found = sorted(self._found, key=lambda it: it.line)
        if found and self._is_moved(found[0]):
            found[0] = Finding(found[0].line, Kind.REORDERED, f"{found[0].what}, but in another place")
        tip = self._tip
        return Verdict(Head(tip.n, tip.hash, tip.time), self._records, tuple(found), self._torn, self._marked)

    def _look_at_end(self) -> None:
        kept, torn = self._kept, self._torn
        if kept is not None and kept.n > self._n:
            what = f"the log ends with record {self._tip.n}, and had a record {kept.n}"
            if torn is None:
                self._find(self._line + 1, Kind.TRUNCATED, what)
            else:
                self._find(torn.line, Kind.EDITED if torn.whole else Kind.TRUNCATED, what)
            return
        if kept is not None and self._kept_line and self._kept_hash != kept.hash:
            self._find(self._kept_line, Kind.EDITED, f"record {kept.n} has another hash than the one that was kept")
        if torn is not None:
            kind = Kind.EDITED if torn.whole and kept is None else Kind.TORN
            self._find(torn.line, kind, f"this is no whole record, and stands behind record {self._tip.n}")

    def _is_moved(self, finding: Finding) -> bool:
        """Whether what is missing here, or does not belong here, is elsewhere in the log, or missing elsewhere."""
        gone = next((numbers for it, numbers in self._holes if it is finding), range(0))
        if any(stray.n in gone for _, stray in self._strays):
            return True
        stray = next((stray for it, stray in self._strays if it is finding), None)
        return stray is not None and (self._fits(stray) or any(stray.n in numbers for _, numbers in self._holes))

    def _fits(self, item: Link) -> bool:
        return item.n == self._n + 1 and self._hash in (item.prev, "")

    def _accept(self, line: int, item: Link) -> None:
        self._records += item.n != self._tip.n
        self._tip, self._n, self._hash, self._line = item, item.n, item.hash, line
        if self._kept is not None and item.n == self._kept.n:
            self._kept_line, self._kept_hash = line, item.hash

    def _stray(self, line: int, item: Link) -> None:
        self._strays.append((self._find(line, Kind.INSERTED, f"record {item.n} does not belong here"), item))
        del self._strays[MAX_FINDINGS:]

    def _find(self, line: int, kind: Kind, what: str) -> Finding:
        finding = Finding(line, kind, what)
        if len(self._found) < MAX_FINDINGS:
            self._found.append(finding)
        return finding
