"""What the return codes of PKCS#11 mean to us: python-pkcs11's exceptions become ours here."""

from __future__ import annotations

import pkcs11
from pkcs11 import PKCS11Error

from optima_bridge.errors import (
    BridgeError,
    LinkBusy,
    LinkLost,
    NotAuthorised,
    RemoteProtocolError,
    SecretLocked,
    SlotError,
    TokenAbsent,
    WriteProtected,
)

ABSENT = (pkcs11.NoSuchToken, pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised)
LOST = (pkcs11.DeviceRemoved, pkcs11.SessionHandleInvalid, pkcs11.SessionClosed, pkcs11.SlotIDInvalid)
WRONG = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange)
READ_ONLY = (pkcs11.TokenWriteProtected, pkcs11.SessionReadOnly, pkcs11.SessionReadOnlyExists)
NOT_AUTHORISED = (pkcs11.UserNotLoggedIn, pkcs11.UserPinNotInitialized, pkcs11.PinExpired)
REFUSED = (
    pkcs11.AttributeReadOnly,
    pkcs11.AttributeSensitive,
    pkcs11.AttributeTypeInvalid,
    pkcs11.AttributeValueInvalid,
    pkcs11.DeviceMemory,
    pkcs11.DomainParamsInvalid,
    pkcs11.FunctionNotSupported,
    pkcs11.FunctionRejected,
    pkcs11.KeyTypeInconsistent,
    pkcs11.MechanismInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.TemplateIncomplete,
    pkcs11.TemplateInconsistent,
)


def explained(uri: str, error: PKCS11Error) -> BridgeError:
    """What a return code means to us; one that is in none of the lists leaves open what was done."""
    match error:
        case pkcs11.PinLocked():
            return SecretLocked(f"the PIN of {uri} is locked")
        case pkcs11.UserAlreadyLoggedIn():
            return LinkBusy(f"{uri} is in use", cause="another library in this process is logged in to the same token")
    for kinds, ours, what in (
        (ABSENT, TokenAbsent, "is not there"),
        (LOST, LinkLost, "is gone"),
        (READ_ONLY, WriteProtected, "cannot be written to"),
        (NOT_AUTHORISED, NotAuthorised, "lets nobody write without a PIN in order"),
        (REFUSED, SlotError, "refused it"),
    ):
        if isinstance(error, kinds):
            return ours(f"{uri} {what}: {name_of(error)}")
    return RemoteProtocolError(
        f"{uri}: its module failed: {name_of(error)}",
        cause="the token, its reader or the vendor's library",
        next_step="take the token out and put it in again; look into the log of the vendor's library",
    )


def name_of(error: PKCS11Error) -> str:
    return f"{type(error).__name__} {error}".strip()
