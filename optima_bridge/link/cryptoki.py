"""One token through python-pkcs11: what drivers and the CA may do with it. All of it runs on the thread of its module.

Who is logged in is a matter of process and token, so a token has one user here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pkcs11
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from pkcs11 import Attribute, CertificateType, KeyType, Mechanism, MechanismFlag, ObjectClass, PKCS11Error, TokenFlag
from pkcs11.util.ec import encode_named_curve_parameters
from pkcs11.util.x509 import decode_x509_certificate

from optima_bridge.errors import (
    LinkBusy,
    LinkError,
    LinkLost,
    SecretLocked,
    SlotError,
    TokenAbsent,
    WrongSecret,
)
from optima_bridge.link.cryptoki_errors import ABSENT, LOST, WRONG, explained, name_of
from optima_bridge.link.cryptoki_library import library
from optima_bridge.link.p256 import POINT_BYTES, key_id
from optima_bridge.link.pkcs11 import Entry, TokenInfo
from optima_bridge.link.pkcs11_uri import TokenUri

APPLICATION = "optima-bridge"
_P256 = encode_named_curve_parameters("secp256r1")


class TokenSession:
    """One token and our sessions with it: one to work in, and from `login` to `end` one that keeps us logged in.

    Each method but `claim` and `release` makes sure first that the token is still there. All may raise TokenAbsent,
    LinkLost, RemoteProtocolError (it is not known whether it took effect) and SlotError (refused); those that write
    also WriteProtected and NotAuthorised.
    """

    def __init__(self, uri: TokenUri) -> None:
        self.uri = uri
        self._library = library(uri.module_path)
        self.thread = self._library.thread
        self._token: pkcs11.Token | None = None
        self._session: pkcs11.Session | None = None
        self._login: pkcs11.Session | None = None

    @property
    def serial(self) -> bytes | None:
        """Of the token that the session was begun with."""
        return self._token.serial if self._token else None

    @property
    def logged_in(self) -> bool:
        """Whether the token has taken our PIN."""
        return self._login is not None

    def claim(self) -> None:
        """Have the module loaded and initialised, until `release`."""
        self._library.enter(self)

    def release(self) -> None:
        """Log out and give the module back."""
        self.end()
        self._token = None
        self._library.leave(self)

    def begin(self) -> TokenInfo:
        """Look for the token anew and work in a fresh session. The same token keeps us logged in: each login is a risk.

        Raises:
            TokenAbsent: no token is as the URI says. LinkError: several are.
            LinkBusy: something else in this process uses it.
        """
        self.claim()
        before, self._token = self.serial, None
        token = self._find()
        if token.serial == before:
            self._end_work()
        else:
            self.end()
        self._token = token
        return _info(token)

    def end(self) -> None:
        """Log out and close the sessions, if there are any; the next step opens a public one."""
        self._end_work()
        login, self._login = self._login, None
        _close(login)

    def look(self) -> TokenInfo:
        """What the token says now.

        Raises:
            TokenAbsent: it is gone, or another one is in its place. LinkLost: it does not tell.
        """
        if self._token is None:
            return self.begin()
        try:
            token = self._token.slot.get_token()
        except PKCS11Error as error:
            if isinstance(error, ABSENT):
                raise explained(self.uri.text, error) from error
            raise LinkLost(f"{self.uri.text} does not answer: {name_of(error)}") from error
        if token.serial != self._token.serial:
            raise TokenAbsent(f"the token {_serial(token)} is in the place of {_serial(self._token)}")
        return _info(token)

    def login(self, pin: bytes) -> None:
        """Log in; it costs one of the token's attempts where the PIN is wrong.

        Raises:
            WrongSecret, SecretLocked: the token refused it.
        """
        self.look()
        assert self._token is not None
        self.end()
        try:
            self._login = self._token.open(user_pin=pin.decode())
        except UnicodeDecodeError as error:
            raise WrongSecret(
                f"the PIN of {self.uri.text} is no UTF-8 text, so it was not tried", attempts_remaining=None
            ) from error
        except WRONG as error:
            left = self.look().attempts_remaining
            if left == 0:
                raise SecretLocked(f"{self.uri.text} refused the PIN and takes none any more") from error
            more = "" if left is None else f"; {left} attempt remains"
            raise WrongSecret(f"{self.uri.text} refused the PIN{more}", attempts_remaining=left) from error
        except PKCS11Error as error:
            raise explained(self.uri.text, error) from error

    def certificates(self, prefix: str) -> list[Entry]:
        """The certificates whose label begins with `prefix`; of all others only the label is read."""
        return self._entries(ObjectClass.CERTIFICATE, prefix)

    def data(self, prefix: str) -> list[Entry]:
        """The data objects whose label begins with `prefix`; of all others only the label is read."""
        return self._entries(ObjectClass.DATA, prefix)

    def add_certificate(self, label: str, der: bytes) -> None:
        """Store a certificate, seen without PIN. CKA_ID and the names are taken from it, where it is X.509."""
        self._add({**_described(der), Attribute.CLASS: ObjectClass.CERTIFICATE}, label, der)

    def add_data(self, label: str, value: bytes) -> None:
        """Store bytes, seen without PIN."""
        self._add({Attribute.CLASS: ObjectClass.DATA, Attribute.APPLICATION: APPLICATION}, label, value)

    def relabel(self, entry: Entry, label: str) -> None:
        """Give an object another label: one C_SetAttributeValue."""
        with self._session_in_use():
            entry.object[Attribute.LABEL] = label

    def destroy(self, entry: Entry) -> None:
        """Remove an object."""
        with self._session_in_use():
            entry.object.destroy()

    def public_keys(self, label: str) -> list[Entry]:
        """P-256 public keys of this label."""
        with self._session_in_use() as session:
            found = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label})
            return [Entry(label, bytes(item[Attribute.EC_POINT])[-POINT_BYTES:], item) for item in found if _p256(item)]

    def has_private_key(self, label: str) -> bool:
        """Whether there is a private key of this label; seen only when logged in."""
        with self._session_in_use() as session:
            return bool(list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label})))

    def generate_key(self, label: str) -> bytes:
        """Make a P-256 pair that never leaves the token; returns its uncompressed point. CKA_ID is the point's SHA-1."""
        with self._session_in_use() as session:
            p256 = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
            public, private = p256.generate_keypair(
                store=True,
                label=label,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                mechanism=Mechanism.EC_KEY_PAIR_GEN,
                public_template={Attribute.PRIVATE: False},
                private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
            )
            point = bytes(public[Attribute.EC_POINT])[-POINT_BYTES:]
            for half in (private, public):
                half[Attribute.ID] = key_id(point)
            return point

    def sign(self, digest: bytes, **key: Any) -> bytes:
        """ECDSA over a SHA-256 digest, r and s of 32 bytes each, with the private key of this ``label`` or ``id``.

        Raises:
            SlotError: there is none.
        """
        named = {Attribute[name.upper()]: value for name, value in key.items()}
        with self._session_in_use() as session:
            keys = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **named}))
            if not keys:
                raise SlotError(f"{self.uri.text} does not hold the private key", cause="it was removed, or never made")
            return bytes(keys[0].sign(digest, mechanism=Mechanism.ECDSA))  # type: ignore[attr-defined]

    def _entries(self, kind: ObjectClass, prefix: str) -> list[Entry]:
        with self._session_in_use() as session:
            labelled = [(_label(item), item) for item in session.get_objects({Attribute.CLASS: kind})]
            return [Entry(label, _value(item), item) for label, item in labelled if label.startswith(prefix)]

    def _add(self, template: dict[Attribute, Any], label: str, value: bytes) -> None:
        with self._session_in_use() as session:
            session.create_object(
                {
                    **template,
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: False,
                    Attribute.LABEL: label,
                    Attribute.VALUE: value,
                }
            )

    def _end_work(self) -> None:
        session, self._session = self._session, None
        _close(session)

    def _find(self) -> pkcs11.Token:
        found = [token for token in self._library.tokens() if _fits(token, self.uri)]
        if not found:
            raise TokenAbsent(f"no token is as {self.uri.text} says")
        if len(found) > 1:
            raise LinkError(
                f"{len(found)} tokens are as {self.uri.text} says",
                cause="they have the same label",
                next_step=f"name one by serial=: {', '.join(sorted(_serial(token) for token in found))}",
            )
        if any(found[0].serial == other.serial for other in self._library.users if other is not self):
            raise LinkBusy(
                f"{self.uri.text} is in use",
                cause="another part of this process uses the same token",
                holder={"pid": 0, "program": "this process"},
            )
        return found[0]

    @contextmanager
    def _session_in_use(self) -> Iterator[pkcs11.Session]:
        self.look()
        assert self._token is not None
        was_logged_in = self.logged_in
        try:
            if self._session is None:
                self._session = self._token.open(rw=was_logged_in)
            yield self._session
        except LOST as error:
            self.end()
            raise explained(self.uri.text, error) from error
        except pkcs11.UserNotLoggedIn as error:
            self.end()
            if was_logged_in:
                raise LinkLost(f"{self.uri.text} was taken out meanwhile, and has forgotten the PIN") from error
            raise explained(self.uri.text, error) from error
        except PKCS11Error as error:
            raise explained(self.uri.text, error) from error


def _close(session: pkcs11.Session | None) -> None:
    """Close it, if it is there; with the one that logged in the token logs us out."""
    if session is not None:
        with suppress(PKCS11Error):  # the token is gone, and the session with it
            session.close()


def _fits(token: pkcs11.Token, uri: TokenUri) -> bool:
    info = _info(token)
    wanted = {"label": uri.token, "serial": uri.serial, "model": uri.model, "manufacturer": uri.manufacturer}
    return all(value is None or getattr(info, name) == value for name, value in wanted.items())


def _serial(token: pkcs11.Token) -> str:
    return token.serial.decode("utf-8", "replace").strip("\0 ")


def _info(token: pkcs11.Token) -> TokenInfo:
    flags = token.flags
    return TokenInfo(
        label=token.label,
        manufacturer=token.manufacturer_id,
        model=token.model,
        serial=_serial(token),
        firmware=".".join(map(str, token.firmware_version)),
        write_protected=bool(flags & TokenFlag.WRITE_PROTECTED),
        pin_doubted=bool(flags & TokenFlag.USER_PIN_COUNT_LOW),
        pin_final_try=bool(flags & TokenFlag.USER_PIN_FINAL_TRY),
        pin_locked=bool(flags & TokenFlag.USER_PIN_LOCKED),
    )


def _label(item: Any) -> str:
    """An object's label; empty where it has none, or one that is no text: such an object is not ours."""
    try:
        return str(item[Attribute.LABEL])
    except (UnicodeDecodeError, pkcs11.AttributeTypeInvalid):
        return ""


def _p256(item: Any) -> bool:
    return bool(item.key_type is KeyType.EC and bytes(item[Attribute.EC_PARAMS]) == _P256)


def _value(item: Any) -> bytes:
    """An object's bytes; none where it was not completed."""
    try:
        return bytes(item[Attribute.VALUE])
    except pkcs11.AttributeTypeInvalid:
        return b""


def _described(der: bytes) -> dict[Attribute, Any]:
    """The attributes of a certificate object besides its value (PKCS#11 v2.40, section 4.6.3)."""
    kind = {Attribute.CERTIFICATE_TYPE: CertificateType.X_509}
    try:
        public_key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):  # whoever writes it has checked what it is
        return {**kind, Attribute.SUBJECT: b"", Attribute.ID: b""}
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return {**decode_x509_certificate(der), **kind, Attribute.ID: identifier.digest}
