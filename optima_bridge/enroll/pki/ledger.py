"""What the CA has issued and revoked: SQLite, one file, each change on disk before anybody hears of it.

The current revocation list lies in the same file and changes in the same transaction as what it lists, so the two cannot
disagree. A connection lives as long as one operation: any thread may call, and two processes take turns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki.crl import Revocation
from optima_bridge.enroll.pki.profile import format_serial, name_text
from optima_bridge.errors import CaUnfit

BUSY_TIMEOUT_S = 10.0
SCHEMA = """
CREATE TABLE issued (
    serial TEXT PRIMARY KEY,      -- as format_serial writes it: 159 bits are too many for an INTEGER
    sha256 TEXT NOT NULL,
    subject TEXT NOT NULL,
    not_before INTEGER NOT NULL,  -- seconds since 1970, UTC
    not_after INTEGER NOT NULL,
    der BLOB NOT NULL,
    revoked_at INTEGER,           -- NULL: not revoked
    reason TEXT
) STRICT;
CREATE TABLE crl (number INTEGER PRIMARY KEY, last_update INTEGER NOT NULL, der BLOB NOT NULL) STRICT;
"""

Sign = Callable[[int, list[Revocation]], x509.CertificateRevocationList]


class Counts(msgspec.Struct, frozen=True):
    """How many certificates were issued, and how many of these revoked."""

    issued: int
    revoked: int


class Ledger:
    """The ledger at `path`.

    Raises (every method):
        CaUnfit: the file is absent, damaged, or held by another process for longer than 10 s.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self, sign: Sign) -> None:
        """Fill an empty file; with the first list, on which nothing is."""
        with self._transaction() as db:
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            _keep_crl(db, sign)

    def record(self, certificate: x509.Certificate) -> None:
        """Take down a certificate; it may be handed out afterwards."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO issued (serial, sha256, subject, not_before, not_after, der) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    format_serial(certificate.serial_number),
                    certificate.fingerprint(SHA256()).hex(),
                    name_text(certificate.subject),
                    _seconds(certificate.not_valid_before_utc),
                    _seconds(certificate.not_valid_after_utc),
                    certificate.public_bytes(Encoding.DER),
                ),
            )

    def revoke(self, serial: int, at: datetime, reason: x509.ReasonFlags, sign: Sign) -> bool:
        """Revoke and sign the new list, both or none; False: it was revoked before, nothing changed.

        Raises:
            KeyError: this CA did not issue it.
        """
        key = format_serial(serial)
        with self._transaction() as db:
            row = db.execute("SELECT revoked_at FROM issued WHERE serial = ?", (key,)).fetchone()
            if row is None:
                raise KeyError(key)
            if row[0] is not None:
                return False
            change = "UPDATE issued SET revoked_at = ?, reason = ? WHERE serial = ?"
            db.execute(change, (_seconds(at), reason.value, key))
            _keep_crl(db, sign)
        return True

    def renew_crl(self, sign: Sign) -> None:
        """Sign the list once more with later dates."""
        with self._transaction() as db:
            _keep_crl(db, sign)

    def crl(self) -> x509.CertificateRevocationList:
        """The current list."""
        with self._transaction() as db:
            (der,) = db.execute("SELECT der FROM crl ORDER BY number DESC LIMIT 1").fetchone()
        return x509.load_der_x509_crl(der)

    def counts(self) -> Counts:
        """How many."""
        with self._transaction() as db:
            issued, revoked = db.execute("SELECT count(*), count(revoked_at) FROM issued").fetchone()
        return Counts(issued, revoked)

    def newest(self) -> datetime:
        """The latest time that the CA has put its name to and stands by: it cannot be earlier now."""
        with self._transaction() as db:
            (listed,) = db.execute("SELECT max(last_update) FROM crl").fetchone()
            (issued,) = db.execute("SELECT max(not_before) FROM issued WHERE revoked_at IS NULL").fetchone()
        return datetime.fromtimestamp(max(listed, issued or 0), UTC)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            place = f"{self._path.absolute().as_uri()}?mode=rw"  # an absent ledger is an error, not a new one
            with closing(sqlite3.connect(place, timeout=BUSY_TIMEOUT_S, isolation_level=None, uri=True)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")  # not reached: closing undoes what was begun
        except sqlite3.Error as error:
            raise CaUnfit(f"the ledger {self._path} cannot be used: {error}") from error


def _keep_crl(db: sqlite3.Connection, sign: Sign) -> None:
    """Sign what is revoked in this transaction under the next number (RFC 5280 §5.2.3), and keep only that list."""
    (number,) = db.execute("SELECT coalesce(max(number), 0) + 1 FROM crl").fetchone()
    rows = db.execute("SELECT serial, revoked_at, reason FROM issued WHERE revoked_at IS NOT NULL ORDER BY serial")
    revoked = [
        Revocation(int(serial, 16), datetime.fromtimestamp(at, UTC), x509.ReasonFlags(reason))
        for serial, at, reason in rows
    ]
    crl = sign(number, revoked)
    db.execute("DELETE FROM crl")
    row = (number, _seconds(crl.last_update_utc), crl.public_bytes(Encoding.DER))
    db.execute("INSERT INTO crl (number, last_update, der) VALUES (?, ?, ?)", row)


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
