"""PIV cards whose power can be cut at each command, of each kind that there is: atomic, writing in place, writing anew."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from optima_bridge.errors import FrameError
from optima_bridge.link.card import CardLink
from optima_bridge.link.memory_card import memory_reader
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import SecureStore
from optima_drivers.loopback.flash import PowerCut, When
from optima_drivers.pcsc import objects
from optima_drivers.pcsc.management import ManagementKey
from optima_drivers.pcsc.piv import PivDriver, PivSettings
from optima_drivers.pcsc.store import PivStore
from optima_drivers.pcsc.virtual_card import MANAGEMENT_KEY, VirtualPivCard
from optima_drivers.pcsc.virtual_files import Writes


class PivCard:
    """A card in a reader. `one_plug`: the store PC loses its power with it; otherwise only the card is gone."""

    def __init__(self, serial: str, writes: Writes, *, one_plug: bool) -> None:
        self.everyday_cuts = 8 if one_plug else 4
        self._serial = serial
        self._one_plug = one_plug
        self.card = VirtualPivCard(writes=writes)

    def power_up(self) -> SecureStore:
        self.card.restart()
        link, reader = memory_reader()
        reader.insert(self.card)
        self.card.on_power_cut = _power_cut if self._one_plug else reader.remove
        return _Named(link, settings(atomic_put_data=self.card.files.writes is Writes.ATOMIC), self._serial)

    def cut_at(self, operation: int, when: When, seed: int) -> None:
        self.card.cut_at(operation, when.value, seed)

    def watch(self, on_operation: Callable[[], None]) -> None:
        self.card.on_operation = on_operation

    @property
    def operations(self) -> int:
        return self.card.operations

    @property
    def writes(self) -> int:
        return self.card.writes

    def credential(self) -> bytes | None:
        """From the one object that the terminal reads; a mixture of two certificates has a wrong signature."""
        try:
            return objects.certificate(self.card.files.objects.get(objects.MAIN, b""))
        except FrameError:
            return None

    def snapshot(self) -> bytes:
        return self.card.files.dump()

    def restore(self, snapshot: bytes) -> None:
        self.card.files.load(snapshot)


class _Named(PivStore):
    """The card's number is the one that the jobs of these tests are for."""

    def __init__(self, link: CardLink, keys: PivSettings, serial: str) -> None:
        management_key = ManagementKey(keys.management_algorithm, keys.management_key)
        super().__init__(link, PivDriver(link, keys).store.traits, management_key, Counter())
        self._serial = serial

    async def connect(self) -> DeviceIdentity:
        return msgspec.structs.replace(await super().connect(), serial=self._serial)


def settings(**keys: object) -> PivSettings:
    """Of a driver that knows the virtual card's management key."""
    key = {"file": str(_key_file())}
    return PivSettings.model_validate({"management_key": key, "management_algorithm": "3des", **keys})


@cache
def _key_file() -> Path:
    directory = tempfile.mkdtemp(prefix="optima-piv-")
    path = Path(directory) / "management.key"
    path.touch(0o600)
    path.write_text(MANAGEMENT_KEY.hex())
    return path


def _power_cut() -> None:
    raise PowerCut


def worlds(serial: str) -> dict[str, Callable[[], PivCard]]:
    """All of them."""
    return {
        "PIV atomic, host and card on one plug": lambda: PivCard(serial, Writes.ATOMIC, one_plug=True),
        "PIV atomic, card behind a link": lambda: PivCard(serial, Writes.ATOMIC, one_plug=False),
        "PIV in place, host and card on one plug": lambda: PivCard(serial, Writes.IN_PLACE, one_plug=True),
        "PIV in place, card behind a link": lambda: PivCard(serial, Writes.IN_PLACE, one_plug=False),
        "PIV anew, host and card on one plug": lambda: PivCard(serial, Writes.ANEW, one_plug=True),
    }
