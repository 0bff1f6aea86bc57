"""Every error that optima-bridge raises on purpose, each with a stable code, its likely cause and the next step.

    BridgeError
    ├── ConfigError            the configuration is wrong; the daemon does not start (rc 13)
    ├── UsageError             the question itself is wrong: unknown device, bad argument
    │   └── NotFound           no device, driver or job of that name (rc 3); CaMissing
    ├── DriverError            DriverNotFound, ContractMismatch, DuplicateDriver
    ├── LinkError              LinkNotFound, LinkBusy, LinkPermission, LinkLost, LinkTimeout, TransferRefused, TokenAbsent
    ├── ProtocolError          RemoteProtocolError → FrameError → ChecksumError, FrameTooLong
    ├── DeviceError            the device understood and refused, or reports a fault of its own
    │   ├── ReaderBlind        of two readers of one place: it misses what the other one sees
    │   ├── SlotError          secure memory: this slot cannot take, keep or give what was asked
    │   ├── WriteProtected     it can be read only (rc 5)
    │   └── NotAuthorised      a PIN or key is needed to write: SecretMissing, WrongSecret, SecretLocked (rc 5)
    ├── EnrollError            a certificate did not get into secure memory
    │   ├── EnrollRefused      before the first write: WrongDevice, WrongKey, KeyAbsent, SlotOccupied, FingerprintMismatch,
    │   │                      SingleSlot, TooLate, LastCredential (rc 5); see CertificateError too
    │   ├── EnrollBusy         another job, or another process, has the controller; ControllerBusy: its own work has it (rc 6)
    │   ├── VerifyMismatch     what was read back differs; the previous certificate is active (rc 10)
    │   └── WriteUncertain     which certificate is active is not known now (rc 11)
    ├── JournalError           the journal's disk is full; JournalDamaged: its file was damaged, what was readable is saved
    │   └── AuditError         a record cannot be written to the audit log; AuditBroken: the log was changed (rc 10)
    ├── SinkError              BrokerUnavailable, BrokerRefused
    ├── CertificateError       a credential is refused before anything is written (rc 5)
    │   ├── file               CertificateUnreadable, PrivateKeyInFile, SeveralCertificates, CertificateTooBig
    │   ├── trust              UntrustedIssuer, CertificateRevoked, RevocationUnknown
    │   ├── time               CertificateNotYetValid, CertificateExpired, ClockBehind
    │   ├── content            WrongRole, WeakKey, KeyMismatch, RequestMismatch, BoundElsewhere
    │   └── our own CA         CaExists, CaUnfit
    ├── ApiError               the control API cannot have its socket
    ├── Busy                   all places are taken at the moment (rc 6)
    ├── TimedOut               what was waited for did not come (rc 7)
    ├── RecordingCut           a recording cannot be written on (rc 9)
    ├── ReplayDiffers          a recording makes other events than it did (rc 10)
    ├── DaemonUnavailable      no daemon answers on the socket (rc 8)
    ├── AccessDenied           the caller's role does not allow it (rc 4)
    └── Interrupted            stopped by a person before anything became active (rc 130)

Foreign exceptions become one of these once, at the edge, with ``from error``. A code never changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class BridgeError(Exception):
    """Something went wrong that a person can act upon.

    Attributes:
        code: stable name such as ``E-PORT-BUSY``; wording may change, this does not.
        exit_status: what the command line returns (ux: exit codes).
        retryable: whether trying again later, with nothing changed, may succeed.
        cause: the likely cause, one sentence.
        next_step: a runnable command or one physical action.
        data: facts for programs, JSON-serialisable.
    """

    code: ClassVar[str] = "E-INTERNAL"
    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    default_cause: ClassVar[str] = "this is a bug in optima-bridge"
    default_next_step: ClassVar[str] = "report it together with the output of: bridge status --json"

    def __init__(self, what: str, *, cause: str = "", next_step: str = "", **data: object) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause or self.default_cause
        self.next_step = next_step or self.default_next_step
        self.data = data

    def document(self) -> dict[str, object]:
        """The JSON form used by the API, ``--json`` and alerts."""
        return {
            "code": self.code,
            "what": self.what,
            "cause": self.cause,
            "next": self.next_step,
            "rc": self.exit_status,
            "data": self.data,
        }


def restored(document: Mapping[str, Any]) -> BridgeError:
    """The error of a document that another process sent, with its own code and exit status, which this version may not know."""
    kind = type("Restored", (BridgeError,), {"code": document["code"], "exit_status": document["rc"]})
    error: BridgeError = kind(document["what"], cause=document["cause"], next_step=document["next"], **document["data"])
    return error


class ConfigError(BridgeError):
    """The configuration is invalid; nothing was started. Example: an unknown key, a port out of range."""

    code = "E-CONFIG"
    exit_status = 13
    default_cause = "a typing mistake, or a file written for another version"
    default_next_step = "correct the lines named above, then run: bridge config check"


class UsageError(BridgeError):
    """The request itself is wrong. Example: a replay range that ends before it begins."""

    code = "E-USAGE"
    exit_status = 2
    default_cause = "the command or request does not have the expected form"
    default_next_step = "see: bridge --help"


class NotFound(UsageError):
    """No device, driver or job of that name. Example: ``bridge devices show frnt``."""

    code = "E-NOT-FOUND"
    exit_status = 3
    default_cause = "a typing mistake, or it is not configured on this store PC"
    default_next_step = "see what there is: bridge devices list"


class DriverError(BridgeError):
    """A driver cannot be used as it is installed."""

    code = "E-DRIVER"
    exit_status = 13
    default_cause = "the driver package is missing, damaged or made for another version"
    default_next_step = "see what is installed: bridge drivers list"


class DriverNotFound(DriverError):
    """The configuration names a driver that is not installed."""

    code = "E-DRIVER-NOT-FOUND"


class ContractMismatch(DriverError):
    """The driver was written for another version of the driver contract."""

    code = "E-DRIVER-CONTRACT"


class DuplicateDriver(DriverError):
    """Two installed packages offer a driver of the same name."""

    code = "E-DRIVER-DUPLICATE"


class LinkError(BridgeError):
    """The byte pipe to a device cannot be opened or has broken."""

    code = "E-LINK"
    exit_status = 9
    retryable = True
    default_cause = "the cable, the adapter or its power"
    default_next_step = "check the cable and the adapter, then see: bridge devices list"


class LinkNotFound(LinkError):
    """The port does not exist now. Example: the USB adapter is unplugged."""

    code = "E-PORT-MISSING"
    default_cause = "the adapter is unplugged, or the path in the configuration is another adapter's"
    default_next_step = "plug it in, or correct the path: bridge devices list --all"


class LinkBusy(LinkError):
    """Another program holds the port; ``data['holder']`` has its pid and name where they can be seen."""

    code = "E-PORT-BUSY"
    exit_status = 6
    default_cause = "another program, often ModemManager or a second copy of the daemon, has opened it"
    default_next_step = (
        "stop that program; or keep it away from USB adapters for good: sudo bridge service udev --install"
    )


class LinkPermission(LinkError):
    """The service user may not open the port."""

    code = "E-PORT-PERMISSION"
    exit_status = 4
    default_cause = "the service user is not in the group that owns the port"
    default_next_step = "see who owns it: ls -l PORT; then give it to the service: sudo bridge service udev --install"


class LinkLost(LinkError):
    """The port went away while in use. Example: the plug was pulled."""

    code = "E-LINK-LOST"
    default_cause = "the adapter was unplugged or lost its power"
    default_next_step = "plug it in again; the daemon reopens it by itself"


class LinkTimeout(LinkError, TimeoutError):
    """The device did not answer in time. Example: powered off, wrong port, wrong speed."""

    code = "E-LINK-TIMEOUT"
    exit_status = 7
    default_cause = "no power, a loose cable, or another kind of device on this port"
    default_next_step = "check the cable and that the configured driver fits the device: bridge devices list"


class TransferRefused(LinkError):
    """The device is there and refused a USB transfer. Example: a request that its chip does not know."""

    code = "E-TRANSFER-REFUSED"
    default_cause = "another kind of device has the same ids, or its chip is in a state that only a reset ends"
    default_next_step = "unplug it and plug it in again, then see: bridge devices list"


class TokenAbsent(LinkError):
    """The reader answers, but no card or key is in it. Examples: not put in yet; taken out halfway."""

    code = "E-TOKEN-ABSENT"
    exit_status = 5
    retryable = True
    default_cause = "it was not put in, or was taken out"
    default_next_step = "put it in fully and leave it there"


class ProtocolError(BridgeError):
    """Bytes that do not fit the protocol."""

    code = "E-PROTOCOL"
    exit_status = 9
    retryable = True
    default_cause = "electrical noise, a wrong speed, or another kind of device on this port"
    default_next_step = "check the cable and that the configured driver fits the device: bridge devices list"


class RemoteProtocolError(ProtocolError):
    """The device broke its protocol. Example: an adapter whose answers do not fit the chip."""

    code = "E-PROTOCOL-REMOTE"


class FrameError(RemoteProtocolError):
    """A frame that cannot be right; the only exception that bad bytes may cause in a codec.

    Attributes:
        kind: counted separately per kind: ``length``, ``characters``, ``checksum``, ``overrun``, ...
    """

    code = "E-FRAME"
    kind: str = "frame"

    def __init__(self, what: str, *, kind: str = "") -> None:
        super().__init__(what, kind=kind or self.kind)
        self.kind = kind or self.kind


class ChecksumError(FrameError):
    """The check at the end of a frame does not match its bytes."""

    code = "E-FRAME-CHECKSUM"
    kind = "checksum"


class FrameTooLong(FrameError):
    """More bytes than any frame of this protocol has; they were dropped."""

    code = "E-FRAME-TOO-LONG"
    kind = "overrun"


class DeviceError(BridgeError):
    """The device reports a fault. Example: the 1-Wire line is shorted by a coin on the probe."""

    code = "E-DEVICE"
    exit_status = 9
    retryable = True
    default_cause = "dirt or metal on the contacts, or a defect"
    default_next_step = "clean the contacts, then see: bridge devices list"


class ReaderBlind(DeviceError):
    """One of two readers of a place did not see what the other one saw, and said no word of it being down."""

    code = "E-READER-BLIND"
    default_cause = "dirty contacts, a loose probe cable, or a reader that hangs"
    default_next_step = "clean it and try it with a key: the alert ends with the first key that both readers see"


class SlotError(DeviceError):
    """A slot of secure memory cannot do what was asked. Example: erasing the one that is in use."""

    code = "E-SLOT"
    retryable = False
    default_cause = "the memory is worn, smaller than configured, or not laid out as expected"
    default_next_step = "check that the configured driver and its settings fit the controller"


class WriteProtected(DeviceError):
    """The device can be read, not written. Example: a token whose write protection is on."""

    code = "E-WRITE-PROTECTED"
    exit_status = 5
    retryable = False
    default_cause = "a switch on it, its vendor's settings, or a module that only reads"
    default_next_step = "take the protection away with the vendor's tool, or use another device"


class NotAuthorised(DeviceError):
    """The device lets only those write who know its secret, and this was not shown. Nothing was changed."""

    code = "E-SECRET"
    exit_status = 5
    retryable = False
    default_cause = "no PIN or management key was shown to the device"
    default_next_step = "give it with --pin-file, --pin-stdin or --pin-credential, or at the prompt"


class SecretMissing(NotAuthorised):
    """No PIN or management key is known for the device. Example: a token whose ``pin`` is not in the configuration."""

    code = "E-SECRET-MISSING"
    default_cause = "it stands neither in the configuration nor on the command line"


class WrongSecret(NotAuthorised):
    """The device refused the PIN or key; ``data['attempts_remaining']`` tells how often it still listens, None: not known."""

    code = "E-SECRET-WRONG"
    default_cause = "a typing mistake, or the secret of another device"
    default_next_step = "make sure of it before the next attempt; nothing is tried again by itself"


class SecretLocked(NotAuthorised):
    """The device takes no PIN any more, after too many wrong ones."""

    code = "E-SECRET-LOCKED"
    default_cause = "too many wrong attempts, by whomever"
    default_next_step = "unblock it with its PUK or security officer PIN, with the vendor's tool"


class EnrollError(BridgeError):
    """A certificate did not get into secure memory."""

    code = "E-ENROLL"
    exit_status = 9
    retryable = True
    default_cause = "dirty contacts, a loose cable, or power lost while writing"
    default_next_step = "clean the contacts and check the cable, then enroll again"


class EnrollRefused(EnrollError):
    """A precondition is not met; not one byte was written."""

    code = "E-ENROLL-REFUSED"
    exit_status = 5
    retryable = False
    default_cause = "the certificate, the device or the options do not fit together"
    default_next_step = "correct what is named above, then enroll again"


class WrongDevice(EnrollRefused):
    """Another device answers than the one the job is for; it was left as it is. Example: a card swapped halfway."""

    code = "E-ENROLL-DEVICE"
    default_cause = "the device was replaced, or cables were exchanged"
    default_next_step = "connect the device that is meant, or name the one that is connected"


class KeyAbsent(EnrollRefused):
    """The supervisor key that the certificate is about is not in the reader."""

    code = "E-KEY-ABSENT"
    default_cause = "it was not put in, or not fully"
    default_next_step = "put the key in and run it again, or let it wait: --wait-key 60"


class WrongKey(EnrollRefused):
    """Another key is in the reader than the one that the certificate is about."""

    code = "E-KEY-OTHER"
    default_cause = "two keys were mixed up, or two files"
    default_next_step = "put in the key whose number the certificate bears: openssl x509 -in FILE -noout -subject"


class TooLate(EnrollRefused):
    """A job is behind its point of no return: it finishes, and can be gone back from afterwards."""

    code = "E-JOB-COMMITTED"
    default_cause = "the device was switching already"
    default_next_step = "wait for its end: bridge jobs list"


class SlotOccupied(EnrollRefused):
    """The device holds another certificate, and nobody said that it may be replaced."""

    code = "E-ENROLL-OCCUPIED"
    default_cause = "the device was enrolled before"
    default_next_step = (
        "see what is there: bridge credentials list; to put another in its place: bridge enroll … --replace"
    )


class FingerprintMismatch(EnrollRefused):
    """The device does not hold the certificate that was to be replaced. Example: somebody else was faster."""

    code = "E-ENROLL-FINGERPRINT"
    default_cause = "the certificate was replaced since it was looked at, or this is another device"
    default_next_step = "look at the certificate that is there, and decide again"


class SingleSlot(EnrollRefused):
    """One slot, or one place that the terminal reads, and no atomic write: a power cut while writing leaves no valid certificate there."""

    code = "E-ENROLL-SINGLE-SLOT"
    default_cause = "this kind of controller has no spare slot; the only other copy is on this store PC"
    default_next_step = "make sure of its power, then enroll again and accept the single slot"


class EnrollBusy(EnrollError):
    """A controller takes one job at a time, and a state directory one process."""

    code = "E-ENROLL-BUSY"
    exit_status = 6
    default_cause = "another enrolment runs"
    default_next_step = "wait until it has finished"


class ControllerBusy(EnrollError):
    """The controller is in the middle of a transaction or of its end of day; nothing was written.

    Writing then is what corrupts controllers. It can run as soon as the controller reports ready.
    """

    code = "E-CONTROLLER-BUSY"
    exit_status = 6
    retryable = True
    default_cause = "a pending transaction, or the end-of-day run"
    default_next_step = "finish or clear the transaction ([C] until idle), then run it again"


class LastCredential(EnrollRefused):
    """Without this credential no supervisor could do anything in this store any more; whoever revokes it must say which it is."""

    code = "E-CREDENTIAL-LAST"
    default_cause = "all others have expired, or were revoked"
    default_next_step = "enroll another one first; or say which it is: --label 'supervisor key N'"


class VerifyMismatch(EnrollError):
    """What was read back is not what was written; the previous certificate is still the active one."""

    code = "E-ENROLL-VERIFY"
    exit_status = 10
    default_cause = "dirty contacts, electrical noise, or worn memory"


class WriteUncertain(EnrollError):
    """The device went away at the moment of switching; which certificate is active shows when it is back."""

    code = "E-ENROLL-UNCERTAIN"
    exit_status = 11
    default_cause = "power or connection lost at the moment of switching"
    default_next_step = "give the device its power and cable back; the job is finished or undone when it answers"


class JournalError(BridgeError):
    """Events cannot be written to disk at the moment; they are kept in memory and published all the same."""

    code = "E-JOURNAL"
    exit_status = 9
    retryable = True
    default_cause = "the disk is full or damaged"
    default_next_step = "make room on the disk that holds the state directory; the daemon goes on by itself"


class JournalDamaged(JournalError):
    """The journal's file was damaged; its readable records are in a new file, the old one was put aside.

    ``data``: ``salvaged`` records, ``missing`` sequence numbers between them, path of the ``quarantine``. Example: the power
    failed on a disk that confirms writes too early.
    """

    code = "E-JOURNAL-DAMAGED"
    retryable = False
    default_cause = "a failing disk, or one that confirms writes before they are safe"
    default_next_step = "check the disk: sudo dmesg | grep -i error"


class AuditError(JournalError):
    """A record cannot be written to the audit log. What has happened already goes on; what must be audited is refused."""

    code = "E-AUDIT"
    default_next_step = "make room on the disk that holds the state directory; the next record goes there by itself"


class AuditBroken(AuditError):
    """The audit log is not as it was written; ``data``: ``line``, ``kind``, and the first ``findings``.

    ``kind``: ``edited``, ``missing``, ``inserted``, ``reordered``, ``truncated``, or ``torn`` by a power cut.
    """

    code = "E-AUDIT-BROKEN"
    exit_status = 10
    retryable = False
    default_cause = "somebody changed the file, an old copy was put in its place, or the disk is failing"
    default_next_step = (
        "keep the file as it is, and compare it with an earlier export: see docs/howto/check-the-audit-log.md"
    )


class SinkError(BridgeError):
    """Events cannot be delivered at the moment; they are kept in the journal."""

    code = "E-SINK"
    exit_status = 7
    retryable = True
    default_cause = "the receiver is away"
    default_next_step = "see: bridge status"


class BrokerUnavailable(SinkError):
    """No MQTT connection. Example: the broker is stopped, its name does not resolve, TLS was refused."""

    code = "E-BROKER"
    default_cause = "the broker is stopped, or host, port or certificate are not right"
    default_next_step = "check [mqtt] in the configuration and that the broker runs; events wait in the journal"


class BrokerRefused(SinkError):
    """The broker answers, and refuses. Example: wrong password, a topic that its ACL denies."""

    code = "E-BROKER-REFUSED"
    exit_status = 4
    default_cause = "user name, password, certificate or access list of the broker"
    default_next_step = "give the bridge write access to its topics in the broker's access list"


class CertificateError(BridgeError):
    """A credential certificate, or what it is checked against, is not acceptable; nothing was written."""

    code = "E-CERT"
    exit_status = 5
    default_cause = "the certificate was not made for supervisor credentials of this store"
    default_next_step = "have a certificate issued by the profile `optima supervisor credential v1`"


class CertificateUnreadable(CertificateError):
    """The bytes are no certificate. Example: a request, a mail attachment, a file cut short, one altered byte."""

    code = "E-CERT-UNREADABLE"
    default_cause = "another kind of file, or one damaged on its way"
    default_next_step = "fetch the certificate once more, as PEM or DER; look at it with: openssl x509 -in FILE -text"


class PrivateKeyInFile(CertificateError):
    """A private key lies in a file that should hold a certificate only. Example: key and certificate in one PEM file."""

    code = "E-CERT-PRIVATE-KEY"
    default_cause = "key and certificate were exported into one file"
    default_next_step = "treat that key as known to others: have a certificate issued for a new one, without its key"


class SeveralCertificates(CertificateError):
    """The file holds certificates that are no chain, so which one is meant cannot be told."""

    code = "E-CERT-SEVERAL"
    default_cause = "files were joined, or the chain does not begin with the credential's own certificate"
    default_next_step = "leave only the certificate of the credential in the file"


class CertificateTooBig(CertificateError):
    """The certificate does not fit the device; ``data``: ``size_bytes``, ``max_size_bytes``."""

    code = "E-CERT-SIZE"
    default_cause = "an RSA key, or names and extensions that the profile does not have"
    default_next_step = "have it issued with a P-256 key and without extensions that are not in the profile"


class UntrustedIssuer(CertificateError):
    """Not signed by the CA that this store trusts. Example: another store's CA, another CA of the same name."""

    code = "E-CERT-ISSUER"
    default_cause = "it was issued for another store, or by a CA that has been replaced since"
    default_next_step = "have it issued by the CA of this store: bridge ca show"


class CertificateNotYetValid(CertificateError):
    """Its validity begins later than now."""

    code = "E-CERT-NOT-YET-VALID"
    default_cause = "it is meant for later, or the clock of this PC is behind"
    default_next_step = "check the clock: timedatectl"


class CertificateExpired(CertificateError):
    """Its validity has ended."""

    code = "E-CERT-EXPIRED"
    default_cause = "it was not renewed in time, or the clock of this PC is ahead"
    default_next_step = "check the clock (timedatectl), then have a new certificate issued"


class CertificateRevoked(CertificateError):
    """The CA has revoked it; ``data``: ``serial``, ``revoked_at``."""

    code = "E-CERT-REVOKED"
    default_cause = "the key was reported lost, or was replaced"
    default_next_step = "have a new certificate issued for a new key"


class RevocationUnknown(CertificateError):
    """Whether it is revoked cannot be told. Example: no list, a list signed by another CA, one too long out of date."""

    code = "E-CERT-CRL"
    default_cause = "the revocation list of the CA was not brought to this PC for a long time, or is not its own"
    default_next_step = "fetch the present revocation list (CRL) from the CA"


class WrongRole(CertificateError):
    """It does not make its holder a supervisor. Example: a web server's certificate, a CA's, one with unknown demands."""

    code = "E-CERT-ROLE"


class WeakKey(CertificateError):
    """Its public key is of a kind or size that is not accepted. Example: RSA-1024, Ed25519."""

    code = "E-CERT-KEY-TYPE"
    default_cause = "an old card or tool, or a key made for another purpose"
    default_next_step = "make a P-256 key (RSA from 2048 bits where the card knows nothing else) and have it certified"


class KeyMismatch(CertificateError):
    """The key in the certificate, or the signature that should prove it, is not the device's."""

    code = "E-CERT-KEY-MISMATCH"
    default_cause = "the certificate belongs to another device, or the device has made a new key since"
    default_next_step = "make a new request on this device and have it certified"


class RequestMismatch(CertificateError):
    """What came back from the CA is not what was asked for; ``data['differs']`` says in what."""

    code = "E-CERT-REQUEST"
    default_cause = "the answer to another request, or a CA that changes what it is asked for"
    default_next_step = "take the certificate that answers this request; have the CA copy names and extensions from it"


class BoundElsewhere(CertificateError):
    """It is bound to another controller. Example: a certificate copied from one terminal to the next."""

    code = "E-CERT-DEVICE"
    default_cause = "it was copied from another controller, or the controller was replaced"
    default_next_step = "have a certificate issued for this controller"


class ClockBehind(CertificateError):
    """The clock shows a time before something that has already happened, so nothing may be signed with it."""

    code = "E-CLOCK-BEHIND"
    retryable = True
    default_cause = "the PC was without power and has no working clock battery, or no time server"
    default_next_step = "set the clock: timedatectl"


class CaMissing(NotFound):
    """There is no CA in that directory."""

    code = "E-CA-MISSING"
    default_cause = "it was not made yet, or is in another directory"
    default_next_step = "see how to make one: bridge ca init --help"


class CaExists(CertificateError):
    """There already is a CA; it is never overwritten, for every credential of the store hangs on it."""

    code = "E-CA-EXISTS"
    default_cause = "it was made before"
    default_next_step = "see what is there: bridge ca show"


class CaUnfit(CertificateError):
    """The files of the CA cannot be used. Example: its key can be read by others, belongs to another certificate."""

    code = "E-CA"
    default_cause = "files were copied without their mode, mixed up or damaged"
    default_next_step = "bring the directory of the CA back from its backup"


class ApiError(BridgeError):
    """The control API cannot have its socket; events flow all the same. Example: a second daemon serves on that path."""

    code = "E-API"
    exit_status = 6
    default_cause = "a second daemon, or a directory that the service user may not write"
    default_next_step = "see what is there: ls -l the path of [api] socket; then restart the service"


class Busy(BridgeError):
    """All places are taken at the moment. Example: as many `bridge monitor` as the daemon serves at once."""

    code = "E-BUSY"
    exit_status = 6
    retryable = True
    default_cause = "others use it at the moment"
    default_next_step = "try again when they have finished"


class TimedOut(BridgeError, TimeoutError):
    """What was waited for did not come in time. Example: ``bridge devices wait front --for 5``."""

    code = "E-TIMEOUT"
    exit_status = 7
    retryable = True
    default_cause = "it takes longer, or it will not happen"
    default_next_step = "see what is missing: bridge status"


class RecordingCut(BridgeError):
    """A recording cannot be written on; what was written before is kept, in whole lines. Example: the disk is full."""

    code = "E-RECORDING"
    exit_status = 9
    retryable = True
    default_cause = "the disk is full or damaged"
    default_next_step = "make room there, or record to another disk: bridge record DEVICE -o FILE"


class ReplayDiffers(BridgeError):
    """A recording, played through the driver, makes other events than were recorded. Example: a driver that was changed."""

    code = "E-REPLAY-DIFFERS"
    exit_status = 10
    default_cause = "the driver or its settings were changed, or the recording began with a key or card in the reader"
    default_next_step = "compare what was recorded with what is made now: bridge replay FILE --json"


class DaemonUnavailable(BridgeError):
    """No daemon answers on the socket."""

    code = "E-NO-DAEMON"
    exit_status = 8
    retryable = True
    default_cause = "the service is not running"
    default_next_step = "sudo systemctl start optima-bridge"


class AccessDenied(BridgeError):
    """The caller's Unix groups do not give the role that this needs."""

    code = "E-DENIED"
    exit_status = 4
    default_cause = "the Unix user is not in the group that has this role"
    default_next_step = "sudo usermod -aG optima USER, then log in again"


class Interrupted(BridgeError):
    """Stopped before anything became active. Examples: Ctrl-C; ``bridge jobs cancel``; the service was stopped."""

    code = "E-INTERRUPTED"
    exit_status = 130
    retryable = True
    default_cause = "Ctrl-C"
    default_next_step = "run the command again"
