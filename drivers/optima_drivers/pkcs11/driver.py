"""The pkcs11 driver: a certificate in a token; no events. It notices that the token has gone by looking now and then.

Source: PKCS#11 v2.40 (OASIS), base specification, sections 4 and 5; the URI of the token: RFC 7512.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import LinkError
from optima_bridge.link.pkcs11 import Pkcs11Link
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.secrets import Secret
from optima_bridge.store import HasSecureStore
from optima_drivers.pkcs11.pin import Pin
from optima_drivers.pkcs11.store import Pkcs11Store, identity

NOTHING: tuple[Event, ...] = ()


class Pkcs11Settings(DriverSettings):
    """Configuration keys of a token."""

    pin: Secret | None = Field(
        default=None, description="reference to the user PIN; without it the PIN is given with each enrolment"
    )
    max_size_bytes: int = Field(
        default=2048, ge=256, le=16_384, description="the largest certificate that the token takes, bytes"
    )
    look_interval_ms: int = Field(
        default=2000, ge=100, le=60_000, description="pause between two looks whether the token is still there"
    )


class Pkcs11Driver:
    """One token behind a PKCS#11 module."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="pkcs11",
        summary="certificate in a PKCS#11 token: smart card, USB token, security module, SoftHSM",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.SECURE_STORE}),
        schemes=frozenset({"pkcs11"}),
        integrity="module",  # calls into the vendor's library, which answers for its own line
        spec="PKCS#11 v2.40; RFC 7512",
    )
    Settings: ClassVar[type[DriverSettings]] = Pkcs11Settings

    def __init__(self, link: Pkcs11Link, settings: Pkcs11Settings) -> None:
        self._link = link
        self._look_interval_s = settings.look_interval_ms / 1000
        self._counters: Counter[str] = Counter()
        self.store = Pkcs11Store(link, Pin(settings.pin), settings.max_size_bytes, self._counters)

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    async def start(self) -> DeviceIdentity:
        return identity(await self._link.call(lambda token: token.begin()))

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        while True:
            used = self._counters["calls"]
            await asyncio.sleep(self._look_interval_s)
            await self._link.call(lambda token: token.look())
            if used == self._counters["calls"]:
                await self._link.call(lambda token: token.end())  # nobody works with it: nobody stays logged in
            for nothing in NOTHING:
                yield nothing

    async def stop(self) -> None:
        """Log out."""
        with contextlib.suppress(LinkError):
            await self._link.call(lambda token: token.end())


_conforms: type[Driver] = Pkcs11Driver
_conforms_too: type[HasSecureStore] = Pkcs11Driver
