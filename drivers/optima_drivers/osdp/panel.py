"""The panel's side of one conversation: sequence numbers, the handshake, and which frames may be believed. Sans-io.

    0 identify   1 capabilities   2 challenge   3 cryptogram │ 1 poll   2 poll   3 poll   1 …
    └─────────────── in the clear, or nothing ───────────────┘ └──── sealed, or in the clear ────┘

Sequence 0 begins anew and ends any session. With a key, only the four messages on the left ever leave in the clear, and
after them nothing is believed that is not sealed, but for two words that tell nothing: BUSY, and a refusal, which ends the
session. Source: SIA OSDP 2.2, sections 5.9 and 7.19, annex D.
"""

from __future__ import annotations

import hmac
import secrets

from optima_bridge.errors import FrameError, RemoteProtocolError
from optima_drivers.osdp import messages
from optima_drivers.osdp.codec import Frame
from optima_drivers.osdp.messages import Ack, Busy, Nak, NakCode, Reply
from optima_drivers.osdp.secure import RANDOM_BYTES, SecureChannel, SessionKeys

CHALLENGE_BLOCK, CCRYPT_BLOCK, SCRYPT_BLOCK, R_MAC_BLOCK = 0x11, 0x12, 0x13, 0x14
HANDSHAKE = {messages.CHALLENGE, messages.SERVER_CRYPTOGRAM}  # codes of commands that nothing but a proof answers
OPENING = {messages.IDENTIFY, messages.CAPABILITIES}  # the commands that may be sent before there is a session
ENDS_SESSION = {NakCode.SEQUENCE, NakCode.SECURITY_UNSUPPORTED, NakCode.SECURITY_NEEDED}


class SessionLost(RemoteProtocolError):
    """The peripheral has to be greeted anew."""


class OutOfStep(SessionLost):
    """It waits for another sequence number; that says nothing of its key."""


class WrongKey(RemoteProtocolError):
    """The peripheral does not prove that it has the key."""


class Conversation:
    """One peripheral, from one greeting to the next.

    Args:
        address: its own, 0 to 126.
        secured: whether nothing but the greeting may be in the clear.
        crc: which check commands carry; replies may carry either.
    """

    def __init__(self, address: int, *, secured: bool, crc: bool = True) -> None:
        self.address = address
        self._secured = secured
        self._crc = crc
        self.greet()

    def greet(self) -> None:
        """Begin anew: what was agreed upon is forgotten."""
        self._sequence = -1
        self._channel: SecureChannel | None = None
        self._handshake: _Handshake | None = None
        self._asked = b""

    def command(self, body: bytes) -> bytes:
        """The frame that says `body`, as bytes; send the same bytes again where no answer comes.

        Raises:
            SessionLost: there is no session, and it may not be said in the clear.
        """
        if self._secured and self._channel is None and body not in OPENING:
            raise SessionLost(f"reader {self.address}: there is no secure channel")
        return self._command(body)

    def challenge(self, key: bytes, *, default: bool) -> bytes:
        """The frame that begins a handshake about `key`; `default`: it is SCBK-D."""
        self._channel = None
        self._handshake = _Handshake(key, default=default)
        block = bytes([CHALLENGE_BLOCK, self._handshake.key_number])
        return self._command(messages.challenge(self._handshake.random_a), block)

    def server_cryptogram(self) -> bytes:
        """The frame that ends the handshake."""
        assert self._handshake is not None
        block = bytes([SCRYPT_BLOCK, self._handshake.key_number])
        return self._command(messages.server_cryptogram(self._handshake.server_cryptogram), block)

    def hear(self, frame: Frame) -> Reply | None:
        """The reply to the last command; None where this frame is none: another's, late, our own echo, not sealed.

        Raises:
            SessionLost: the peripheral has no session, or another one.
            WrongKey: it failed the handshake.
            FrameError: it answered something that makes no sense.
        """
        if frame.address != self.address or not frame.is_reply:
            return None
        plain = not frame.security
        if plain and frame.sequence == 0 and frame.body == bytes([messages.BUSY]):
            return Busy()
        if frame.sequence != self._sequence:
            return None
        if self._channel is None:
            return self._hear_clear(frame)
        if plain:
            return self._hear_unsealed(frame.body)
        try:
            body = self._channel.open(frame)
        except FrameError as error:
            raise SessionLost(f"reader {self.address}: {error}") from error
        return self._checked(messages.decode_reply(body))

    def _command(self, body: bytes, security: bytes = b"") -> bytes:
        self._sequence = self._sequence % 3 + 1 if self._sequence >= 0 else 0
        self._asked = body
        frame = Frame(
            self.address, is_reply=False, sequence=self._sequence, body=body, security=security, crc=self._crc
        )
        return (self._channel.seal(frame) if self._channel else frame).encode()

    def _hear_clear(self, frame: Frame) -> Reply | None:
        reply = messages.decode_reply(frame.body)
        match reply, self._handshake:
            case messages.ClientCryptogram(), _Handshake() as handshake if self._asked[0] == messages.CHALLENGE:
                if frame.security != bytes([CCRYPT_BLOCK, handshake.key_number]) or not handshake.take(reply):
                    raise WrongKey(f"reader {self.address} has another key")
            case messages.InitialRMac(mac), _Handshake() as handshake if self._asked[0] == messages.SERVER_CRYPTOGRAM:
                first_mac = handshake.keys.first_mac(handshake.server_cryptogram)
                accepted = frame.security == bytes([R_MAC_BLOCK, 1])
                if not accepted or not hmac.compare_digest(mac, first_mac):
                    raise WrongKey(f"reader {self.address} does not accept the key")
                self._channel = SecureChannel(handshake.keys, first_mac)
            case messages.ClientCryptogram() | messages.InitialRMac(), _:
                return None
            case _ if frame.security:
                return None
            case _ if self._asked[0] in HANDSHAKE and not isinstance(reply, Nak):
                return None  # whoever says so: it proves nothing
        return self._checked(reply)

    def _hear_unsealed(self, body: bytes) -> Reply | None:
        try:
            reply = messages.decode_reply(body)
        except FrameError:
            return None
        if isinstance(reply, Nak):  # it is believed in so far that a session has to be agreed upon anew
            raise SessionLost(f"reader {self.address} has no session any more: {reply}")
        if isinstance(reply, Ack) and self._asked[0] == messages.KEY_SET:
            return reply  # with the new key the old session is over; the next handshake proves it
        return None

    def _checked(self, reply: Reply) -> Reply:
        if isinstance(reply, Nak) and reply.code in ENDS_SESSION:
            lost = OutOfStep if reply.code == NakCode.SEQUENCE else SessionLost
            raise lost(f"reader {self.address}: {reply}")
        return reply


class _Handshake:
    """What both sides say about a key without saying it."""

    def __init__(self, key: bytes, *, default: bool) -> None:
        self.key_number = 0 if default else 1
        self.random_a = secrets.token_bytes(RANDOM_BYTES)
        self.keys = SessionKeys.derive(key, self.random_a)
        self.server_cryptogram = b""

    def take(self, reply: messages.ClientCryptogram) -> bool:
        """Whether the peripheral has the key."""
        self.server_cryptogram = self.keys.cryptogram(reply.random_b, self.random_a)
        return hmac.compare_digest(reply.cryptogram, self.keys.cryptogram(self.random_a, reply.random_b))
