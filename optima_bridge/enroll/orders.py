"""What somebody asks the daemon to do with a device's credential: the body of ``POST /v1/enrollments``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from optima_bridge.errors import UsageError

Text = Annotated[str, msgspec.Meta(max_length=200)]
Fingerprint = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Kind(StrEnum):
    """ENROLL: a certificate in, or one issued by the CA of this store. DRY_RUN: its checks only. VERIFY: compare.
    ROLLBACK: the certificate before the last one again. RESUME: what was interrupted. REQUEST: ask a CA elsewhere."""

    ENROLL = "enroll"
    DRY_RUN = "dry-run"
    VERIFY = "verify"
    ROLLBACK = "rollback"
    RESUME = "resume"
    REQUEST = "request"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One order; nothing in it is secret.

    Attributes:
        reader: where the supervisor key is put in; also the device that holds the certificate, unless `controller` is named.
        controller: the device that holds the certificate.
        certificate: what is in the file, PEM or DER; empty: the CA of this store issues one for the key in the reader.
        sha256: VERIFY without a certificate: the fingerprint to compare with.
        resume: RESUME: id of the job; empty: the device's last one.
        organization, store: REQUEST: what the certificate is to say.
        number: of the supervisor key, in a certificate that is issued or asked for; 0: the next free one.
        wait_key_s: how long to wait for the key, seconds.
        replace, if_fingerprint, accept_single_slot, erase_old: see `optima_bridge.enroll.words.Request`.
        reason: for the audit log.
    """

    reader: Text
    kind: Kind = Kind.ENROLL
    controller: Text = ""
    certificate: Annotated[bytes, msgspec.Meta(max_length=16384)] = b""
    sha256: Fingerprint | None = None
    resume: Text = ""
    organization: Text = ""
    store: Text = ""
    number: Annotated[int, msgspec.Meta(ge=0, le=999_999)] = 0
    wait_key_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0
    replace: bool = False
    if_fingerprint: Fingerprint | None = None
    accept_single_slot: bool = False
    erase_old: bool = False
    reason: Text = ""

    @property
    def holder(self) -> str:
        """The device that is to hold the certificate."""
        return self.controller or self.reader

    def check(self) -> None:
        """Whether its parts fit together.

        Raises:
            UsageError: they do not.
        """
        if self.kind is Kind.VERIFY and bool(self.certificate) == (self.sha256 is not None):
            raise UsageError("to verify needs a certificate or a fingerprint, and not both")
        if self.kind is Kind.REQUEST and not (self.organization and self.store):
            raise UsageError("a request needs organization and store: what the certificate is to say")
        if self.kind in (Kind.RESUME, Kind.ROLLBACK, Kind.REQUEST) and self.certificate:
            raise UsageError(f"{self.kind} takes no certificate")
