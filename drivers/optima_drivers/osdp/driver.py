"""OSDP readers on an RS-485 line: the panel polls them in turn, hears what happened, and comes back after every fault.

    greet ─ status ─ poll ─ poll ─ …      a lost or damaged reply: said again, else greeted anew at once
      └──── each half second while a reader is silent; the others are polled meanwhile

The bytes are in `codec` and `messages`, the secure channel in `secure` and `panel`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from optima_bridge.beat import AT_REST, next_beat_ns, pause
from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import BridgeError, DeviceError, FrameError, LinkTimeout, ProtocolError, SlotError
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.secrets import Secret
from optima_bridge.store import HasSecureStore, SecureStore
from optima_drivers.osdp import messages
from optima_drivers.osdp.line import NS_PER_S, TRIES, Line
from optima_drivers.osdp.messages import Ack, Function, Inputs, Reply
from optima_drivers.osdp.news import News, Newsroom
from optima_drivers.osdp.peripheral import Peripheral, Refused
from optima_drivers.osdp.store import OsdpStore

START_PATIENCE_NS = 5 * NS_PER_S
START_PAUSE_S = 0.1
PROBE_NS = NS_PER_S // 2  # from one try to the next while a reader is silent
OFFLINE_NS = 8 * NS_PER_S  # section 5.7: without an answer for so long a peripheral is offline
LIVELY_NS = 5_000_000_000  # after something happened
MAX_IN_A_ROW = 8  # polls of one reader while it has more to tell
FEEDBACK_MS = 500
COLORS = {"red": 1, "green": 2, "amber": 3, "blue": 4}

Address = Annotated[int, Field(ge=0, le=126)]


class OsdpSettings(DriverSettings):
    """Configuration keys of an ``osdp`` device: one line with its readers."""

    addresses: list[Address] = Field(
        default=[0], min_length=1, max_length=8, description="addresses of the readers on this line, 0 to 126"
    )
    baud: Literal[9600, 19200, 38400, 57600, 115200, 230400] = Field(
        default=9600, description="speed of the line, bits per second"
    )
    scbk: Secret | None = Field(
        default=None, description="key of the secure channel, 32 hexadecimal digits; all readers of the line have it"
    )
    install: bool = Field(
        default=False, description="whether a reader without that key is given it, over the default key that all know"
    )
    plain_text: bool = Field(default=False, description="whether to talk in the clear, to readers without encryption")
    checksum: bool = Field(default=False, description="whether commands carry the old one-byte sum in place of the CRC")
    poll_interval_ms: int = Field(
        default=100,
        ge=10,
        le=1000,
        description="from one round of polls to the next, milliseconds; twice that once nothing has happened for 5 s",
    )
    seal_input: int | None = Field(
        default=None, ge=1, le=64, description="input that is the contact of a seal, 1 is the first; absent: no seal"
    )
    seal_active: Literal["broken", "intact"] = Field(
        default="broken", description="what it means when that input is active"
    )
    led: Literal["none", "red", "green", "amber", "blue"] = Field(
        default="none", description="light that answers a card for half a second; none: what the reader does by itself"
    )
    beep: bool = Field(default=False, description="whether a beep answers a card")
    certificate_file_type: int | None = Field(
        default=None,
        ge=1,
        le=255,
        description="file type by which the reader takes a certificate; absent: it takes none",
    )

    @model_validator(mode="after")
    def _check(self) -> OsdpSettings:
        if len(set(self.addresses)) != len(self.addresses):
            raise ValueError("addresses: each reader has its own")
        if (self.scbk is None) is not self.plain_text:
            raise ValueError("needs either scbk, or plain_text = true for readers without encryption")
        if self.plain_text and (self.install or self.certificate_file_type is not None):
            raise ValueError("install and certificate_file_type need a secure channel: scbk")
        return self

    def serial_format(self, declared: SerialFormat) -> SerialFormat:
        return SerialFormat(self.baud, declared.stop_bits)

    def narrow(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        absent = set()
        if self.seal_input is None:
            absent.add(Capability.SEAL_SWITCH)
        if self.certificate_file_type is None:
            absent.add(Capability.SECURE_STORE)
        return declared - absent


class OsdpDriver:
    """The control panel of one line."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="osdp",
        summary="OSDP readers on RS-485: cards, keypad, seal contact, tamper, certificates",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER, Capability.SEAL_SWITCH, Capability.SECURE_STORE}),
        schemes=frozenset({"serial", "memory"}),
        integrity="crc16, AES-128 MAC",
        spec="IEC 60839-11-5, SIA OSDP 2.2",
        serial_format=SerialFormat(9600),
        reports_removal=False,
    )
    Settings: ClassVar[type[DriverSettings]] = OsdpSettings

    def __init__(self, link: ByteLink, settings: OsdpSettings) -> None:
        self._settings = settings
        self._counters: Counter[str] = Counter()
        self._line = Line(link, settings.baud, self._counters)
        self._readers = [
            Peripheral(self._line, address, secret=settings.scbk, install=settings.install, crc=not settings.checksum)
            for address in settings.addresses
        ]
        self._newsroom = Newsroom(settings.addresses, settings.seal_input, settings.seal_active)
        self._status_of: dict[int, int] = {}  # the greeting since which a reader's status is known, by address
        self._failures: dict[int, BridgeError] = {}  # why a reader is away, by address
        self._probe_ns: dict[int, int] = {}  # when it is tried again
        self._may_probe = False
        self._heard_ns = 0
        self._lively_ns = 0
        self._store = OsdpStore(self._line, self._readers[0], settings.certificate_file_type or 0)

    @property
    def counters(self) -> Mapping[str, int]:
        """``polls``, ``greetings``, ``refused``; ``frames_good``, ``frames_bad_…``, ``timeouts``, … of the line."""
        return self._counters

    @property
    def store(self) -> SecureStore:
        """The file of the first reader.

        Raises:
            SlotError: no file type is configured.
        """
        if self._settings.certificate_file_type is None:
            raise SlotError(
                "this reader takes no certificate",
                cause="certificate_file_type is not in its configuration",
                next_step="set it where the reader's vendor tells of one",
            )
        return self._store

    async def start(self) -> DeviceIdentity:
        """Greet all readers; one that answers is enough.

        Raises:
            LinkTimeout: none answers for five seconds.
            ProtocolError, WrongSecret, DeviceError: none can be used.
            ConfigError: the key cannot be read.
        """
        until_ns = self._line.clock_ns() + START_PATIENCE_NS
        while not any(reader.online for reader in self._readers):
            for reader in self._readers:
                try:
                    await self._greet(reader, TRIES)
                except (LinkTimeout, ProtocolError, DeviceError) as error:
                    self._failures[reader.address] = error
            failures = [error for error in self._failures.values() if not isinstance(error, LinkTimeout)]
            if len(self._failures) == len(self._readers):
                if failures:
                    raise failures[0]
                if self._line.clock_ns() > until_ns:
                    raise self._failures[self._readers[0].address]
                self._failures.clear()
                await asyncio.sleep(START_PAUSE_S)
        self._heard_ns = self._line.clock_ns()
        return self._readers[0].identity

    async def stop(self) -> None:
        """Nothing to do: a reader that is not polled any more ends its session by itself."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """What happens at all readers. Ends by LinkLost, or when none of them was of use for eight seconds."""
        yield self._newsroom.beginning()
        for reader in self._readers:
            if (failure := self._failures.get(reader.address)) is not None:
                for news in self._newsroom.went_away(reader.address, failure, self._line.clock_ns()):
                    yield news
        while True:
            self._may_probe = True
            for reader in self._readers:
                if found := await self._visit(reader):
                    self._lively_ns = self._line.clock_ns()
                for news in found:
                    yield news
                await self._acknowledge(reader, found)
            now_ns = self._line.clock_ns()
            if len(self._failures) == len(self._readers) and now_ns - self._heard_ns > OFFLINE_NS:
                raise self._failures[self._readers[0].address]
            is_at_rest = now_ns - self._lively_ns > LIVELY_NS
            due_ns = next_beat_ns(now_ns, self._settings.poll_interval_ms * (AT_REST if is_at_rest else 1))
            await pause((due_ns - self._line.clock_ns()) / NS_PER_S)  # an unplugged line shows at the next poll

    async def _visit(self, reader: Peripheral) -> list[News]:
        """One reader's turn: what it says, or that it has gone."""
        if reader.undisturbed:
            return []
        away = reader.address in self._failures
        if away:
            if not self._may_probe or self._line.clock_ns() < self._probe_ns.get(reader.address, 0):
                return []
            self._may_probe = False  # a silent one costs the others a fifth of a second: one in a round
        found: list[News] = []
        for tries in (1,) if away else (TRIES, TRIES):  # a session that was lost is begun anew at once
            try:
                await self._look(reader, tries, found)
            except (LinkTimeout, ProtocolError, DeviceError) as error:
                failure: BridgeError = error
                continue
            self._heard_ns = self._line.clock_ns()
            return found
        now_ns = self._line.clock_ns()
        self._failures[reader.address] = failure
        self._probe_ns[reader.address] = now_ns + PROBE_NS * len(self._failures)
        found += self._newsroom.went_away(reader.address, failure, now_ns)
        return found

    async def _look(self, reader: Peripheral, tries: int, found: list[News]) -> None:
        """Greet the reader where that is needed, ask for its status after that, and hear what happened."""
        if not reader.online:
            await self._greet(reader, tries)
        if self._failures.pop(reader.address, None) is not None:
            found += self._newsroom.came_back(reader.address, self._line.clock_ns())
        if self._status_of.get(reader.address) != reader.greetings:
            await self._find_levels(reader, found)
        for _ in range(MAX_IN_A_ROW):
            self._counters["polls"] += 1
            if isinstance(await self._ask(reader, messages.POLL, found), Ack | None):
                return

    async def _find_levels(self, reader: Peripheral, found: list[News]) -> None:
        """What is so at a reader that was just greeted, whatever happened before."""
        greetings = reader.greetings
        for command in (messages.LOCAL_STATUS, messages.HEAD_STATUS):
            await self._ask(reader, command, found)
        has_inputs = reader.capabilities.of(Function.INPUTS)[1]
        if not has_inputs or not isinstance(await self._ask(reader, messages.INPUT_STATUS, found), Inputs):
            found += self._newsroom.does_not_tell(reader.address, self._line.clock_ns())
        self._status_of[reader.address] = greetings

    async def _greet(self, reader: Peripheral, tries: int) -> None:
        async with self._line.turn:
            if not reader.online:
                self._counters["greetings"] += 1
                await reader.greet(tries)

    async def _ask(self, reader: Peripheral, body: bytes, found: list[News]) -> Reply | None:
        """Ask one thing; None where the reader refuses it, answers nonsense, or takes a file."""
        async with self._line.turn:
            if reader.undisturbed:
                return None
            try:
                reply = await reader.ask(body)
            except (Refused, FrameError):
                self._counters["refused"] += 1
                return None
        found += self._newsroom.said(reader.address, reply, self._line.clock_ns())
        return reply

    async def _acknowledge(self, reader: Peripheral, found: list[News]) -> None:
        """Light and sound for a card, as far as the reader has them; what gets lost is not said again."""
        commands: list[bytes] = []
        for news in found:
            if isinstance(news, Event) and news.action == "presented":
                head = news.data["reader"]
                assert isinstance(head, int)
                if (color := COLORS.get(self._settings.led)) is not None:
                    commands.append(messages.led(head, color, FEEDBACK_MS))
                if self._settings.beep:
                    commands.append(messages.buzzer(head, FEEDBACK_MS))
        for command in commands:
            try:
                async with self._line.turn:
                    if not reader.undisturbed:
                        await reader.ask(command)
            except (LinkTimeout, ProtocolError, DeviceError):
                self._counters["refused"] += 1


_conforms: type[Driver] = OsdpDriver
_conforms_too: type[HasSecureStore] = OsdpDriver
