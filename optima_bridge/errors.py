"""Every error that optima-bridge raises on purpose, each with a stable code, its likely cause and the next step.

    BridgeError
    ├── ConfigError            the configuration is wrong; the daemon does not start (rc 13)
    ├── UsageError             the question itself is wrong: unknown device, bad argument
    │   └── NotFound           no device, driver or job of that name (rc 3)
    ├── DriverError            DriverNotFound, ContractMismatch, DuplicateDriver
    ├── LinkError              LinkNotFound, LinkBusy, LinkPermission, LinkLost, LinkTimeout
    ├── ProtocolError          RemoteProtocolError → FrameError → ChecksumError, FrameTooLong
    ├── DeviceError            the device understood and refused, or reports a fault of its own
    ├── JournalError           the journal's disk is full; JournalDamaged: its file was damaged, what was readable is saved
    ├── SinkError              BrokerUnavailable, BrokerRefused
    ├── ApiError               the control API cannot have its socket
    ├── Busy                   all places are taken at the moment (rc 6)
    ├── TimedOut               what was waited for did not come (rc 7)
    ├── DaemonUnavailable      no daemon answers on the socket (rc 8)
    └── AccessDenied           the caller's role does not allow it (rc 4)

Foreign exceptions become one of these once, at the edge, with ``from error``. A code never changes its meaning.
"""

from __future__ import annotations

from typing import ClassVar


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
    default_next_step = "stop that program, or keep it away from the port"


class LinkPermission(LinkError):
    """The service user may not open the port."""

    code = "E-PORT-PERMISSION"
    exit_status = 4
    default_cause = "the service user is not in the group that owns the port"
    default_next_step = "see who owns it: ls -l PORT; then give the port to the service's group by a udev rule"


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
