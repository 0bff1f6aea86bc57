"""PIV cards on a PC/SC reader: which card came, and its certificate for card authentication as secure memory.

Commands: `optima_drivers.pcsc.application`; objects: `optima_drivers.pcsc.objects`; how a power cut does no harm:
`optima_drivers.pcsc.store`. The supervisor's credential is slot 9E, whose key signs without a PIN at the lane.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import DeviceError, ProtocolError, TokenAbsent
from optima_bridge.link.card import CardLink
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.secrets import Secret
from optima_bridge.store import HasSecureStore, Readback, SecureStore, StoreTraits
from optima_drivers.pcsc import reader
from optima_drivers.pcsc.application import Application
from optima_drivers.pcsc.management import Algorithm, ManagementKey
from optima_drivers.pcsc.store import TAGS, PivStore


class PivSettings(DriverSettings):
    """Configuration keys of a ``piv`` device."""

    management_key: Secret | None = Field(
        default=None, description="reference to the card's management key, hex digits; needed to write"
    )
    management_algorithm: Algorithm = Field(
        default=Algorithm.AES_192,
        description="kind of the management key; 3des on cards from before 2023",
        strict=False,
    )
    atomic_put_data: bool = Field(
        default=False,
        description="whether the vendor says that a power cut leaves an object old or new, never in between",
    )
    max_certificate_bytes: int = Field(
        default=1856, ge=256, le=8192, description="largest certificate that the card takes, bytes"
    )


class PivDriver:
    """A card reader for PIV cards, and the secure memory in them."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="piv",
        summary="PIV cards on a PC/SC reader: presence, and the credential in slot 9E",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER, Capability.SECURE_STORE}),
        schemes=frozenset({"pcsc"}),
        integrity="iso7816",
        spec="NIST SP 800-73-5 parts 1 and 2, SP 800-78-5; PC/SC part 5; pcsc-lite",
    )
    Settings: ClassVar[type[DriverSettings]] = PivSettings

    def __init__(self, link: CardLink, settings: PivSettings) -> None:
        self._link = link
        self._counters: Counter[str] = Counter()
        traits = StoreTraits(
            slots=len(TAGS),
            atomic_object=settings.atomic_put_data,
            readback=Readback.BYTES,
            max_size_bytes=settings.max_certificate_bytes,
            can_prove_key=True,
            monotonic=False,
            secret="management key",  # noqa: S106 - what it is called
            activates_by_copy=True,
        )
        key = ManagementKey(settings.management_algorithm, settings.management_key)
        self.store: SecureStore = PivStore(link, traits, key, self._counters)

    @property
    def counters(self) -> Mapping[str, int]:
        """``cards`` that came, ``unread`` ones, ``sessions`` of the store, ``frames_bad_…``: objects that are not whole."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Who the card is; the reader's name where there is none, or another kind of card."""
        if (await self._link.wait()).atr:
            try:
                return await self.store.connect()
            except (TokenAbsent, DeviceError, ProtocolError):
                self._counters["unread"] += 1
        return DeviceIdentity(model=self._link.reader)

    async def stop(self) -> None:
        """Nothing to do: each use of the card ends with its reset."""

    def events(self) -> AsyncGenerator[Event | Observation, None]:
        return reader.events(self._link, self._number, self._counters)

    async def _number(self, _: bytes) -> str | None:
        async with self._link.session() as session:
            return (await Application(session).identify()).serial


_conforms: type[Driver] = PivDriver
_conforms_too: type[HasSecureStore] = PivDriver
