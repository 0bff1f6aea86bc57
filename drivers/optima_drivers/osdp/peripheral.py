"""One reader on the line: greet it, prove the key to each other, bring a new one its key, ask it things."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import suppress

from optima_bridge.errors import ConfigError, DeviceError, FrameError, LinkTimeout, RemoteProtocolError, WrongSecret
from optima_bridge.model import DeviceIdentity
from optima_bridge.secrets import Secret
from optima_drivers.osdp import messages
from optima_drivers.osdp.line import TRIES, Line
from optima_drivers.osdp.messages import CapabilityList, Function, Identity, Nak, Reply
from optima_drivers.osdp.panel import Conversation, OutOfStep, SessionLost, WrongKey
from optima_drivers.osdp.secure import DEFAULT_KEY, KEY_BYTES

MIN_RECEIVE_BYTES = 128  # every peripheral takes as much


class Refused(DeviceError):
    """The reader understood the command and does not do it."""


class Peripheral:
    """One address of the line. Every method is used in one's turn on the line.

    Args:
        secret: refers to its key; None: all is said in the clear.
        install: whether a reader that does not have the key yet may be given it over the default key.

    Attributes:
        online: it was greeted, and answers since.
        greetings: how often; what was agreed upon before the last one is forgotten.
        identity, capabilities: as it said at the last one.
        undisturbed: nothing else may be said to it now: it takes a file.
    """

    def __init__(self, line: Line, address: int, *, secret: Secret | None, install: bool, crc: bool) -> None:
        self.address = address
        self.online = False
        self.greetings = 0
        self.undisturbed = False
        self.identity = DeviceIdentity()
        self.capabilities = CapabilityList(())
        self._line = line
        self._secret = secret
        self._install = install
        self._has_key = False  # proved once: from then on never the default key again
        self._conversation = Conversation(address, secured=secret is not None, crc=crc)

    async def greet(self, tries: int = TRIES) -> None:
        """Begin anew, as if it had just been switched on.

        Raises:
            LinkTimeout, ProtocolError: it does not answer, or not as a reader does.
            WrongSecret, DeviceError: it answers, and cannot be used.
            ConfigError: the key cannot be read.
        """
        self.online = False
        identity = await self._hello(tries)
        self.identity = DeviceIdentity(
            model=f"{identity.vendor} model {identity.model}.{identity.version}",
            serial=str(identity.serial),
            firmware=identity.firmware,
        )
        if self._secret is not None:
            await self._secure(await read_key(self._secret))
        self.greetings += 1
        self.online = True

    async def ask(self, body: bytes) -> Reply:
        """Say a command and hear its reply.

        Raises:
            Refused: it does not do this one; nothing else is disturbed.
            FrameError: its reply makes no sense; nothing else is disturbed.
            LinkTimeout, SessionLost: it has to be greeted anew.
        """
        if not self.online:
            raise SessionLost(f"reader {self.address} has to be greeted first")
        self.online = False  # until it has answered: a caller who is cancelled leaves a session that nobody knows
        try:
            reply = await self._say(self._conversation.command(body))
        except (Refused, FrameError):
            self.online = True
            raise
        self.online = True
        return reply

    @property
    def receive_bytes(self) -> int:
        """The longest frame that it takes."""
        low, high = self.capabilities.of(Function.RECEIVE_BUFFER)
        return max(MIN_RECEIVE_BYTES, low | high << 8)

    async def _hello(self, tries: int = TRIES) -> Identity:
        self._conversation.greet()
        identity = await self._say(self._conversation.command(messages.IDENTIFY), tries)
        capabilities = await self._say(self._conversation.command(messages.CAPABILITIES))
        if not isinstance(identity, Identity) or not isinstance(capabilities, CapabilityList):
            raise RemoteProtocolError(f"reader {self.address} does not say what it is")
        self.capabilities = capabilities
        return identity

    async def _secure(self, key: bytes) -> None:
        """A session under `key`; where that fails and may, give the reader the key first."""
        if not self.capabilities.of(Function.SECURITY)[0] & 1:
            raise DeviceError(
                f"reader {self.address} has no secure channel",
                cause="an old reader, or one whose encryption was switched off",
                next_step="switch it on in the reader, or allow it to talk in the clear: plain_text = true",
            )
        try:
            await self._shake_hands(key, default=False)
        except (WrongKey, SessionLost, Refused) as error:
            if self._has_key or not self._install:
                raise self._wrong_key("does not have the key in scbk") from error
            await self._give_key(key)
        self._has_key = True

    async def _give_key(self, key: bytes) -> None:
        await self._hello()
        try:
            await self._shake_hands(DEFAULT_KEY, default=True)
        except (WrongKey, SessionLost, Refused) as error:
            raise self._wrong_key("has neither the key in scbk nor the default key") from error
        with suppress(SessionLost, LinkTimeout):  # whether it took the key shows in the handshake
            await self._say(self._conversation.command(messages.key_set(key)))
        await self._hello()
        try:
            await self._shake_hands(key, default=False)
        except (WrongKey, SessionLost, Refused) as error:
            raise self._wrong_key("did not take the key") from error

    async def _shake_hands(self, key: bytes, *, default: bool) -> None:
        try:
            await self._exchange_proofs(key, default=default)
        except OutOfStep:
            await self._hello()
            await self._exchange_proofs(key, default=default)

    async def _exchange_proofs(self, key: bytes, *, default: bool) -> None:
        await self._say(self._conversation.challenge(key, default=default))
        await self._say(self._conversation.server_cryptogram())

    async def _say(self, request: bytes, tries: int = TRIES) -> Reply:
        reply = await self._line.exchange(self._conversation, request, tries)
        if isinstance(reply, Nak):
            raise Refused(f"reader {self.address} refuses: {reply}")
        return reply

    def _wrong_key(self, what: str) -> WrongSecret:
        return WrongSecret(
            f"reader {self.address} {what}",
            cause="the reader was given another key, was reset, or is another one",
            next_step="put the reader into its installation mode and set install = true once, or bring its key into scbk",
            attempts_remaining=None,
        )


async def read_key(secret: Secret) -> bytes:
    """The key that a secret holds as 32 hexadecimal digits.

    Raises:
        ConfigError: it does not, or it is the default key.
    """
    text = await asyncio.to_thread(secret.read)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or hmac.compare_digest(key, DEFAULT_KEY):
        raise ConfigError(
            "scbk is no key for a reader: it has 32 hexadecimal digits, and is not the default key",
            next_step="make one: openssl rand -hex 16",
        )
    return key
