"""A PIV driver and a virtual card in a reader in memory: what the tests of its store start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optima_bridge.link.memory_card import memory_reader
from optima_drivers.pcsc.piv import PivDriver, PivSettings
from optima_drivers.pcsc.store import PivStore
from optima_drivers.pcsc.virtual_card import MANAGEMENT_KEY, VirtualPivCard


class Bench:
    """`directory` holds the management key."""

    def __init__(self, directory: Path, card: VirtualPivCard | None = None, **keys: Any) -> None:
        self.card = card or VirtualPivCard()
        self.link, self.reader = memory_reader()
        self.reader.insert(self.card)
        self.card.on_power_cut = self.reader.remove
        usual = {"management_key": {"file": str(key_file(directory))}, "management_algorithm": "3des"}
        self.driver = PivDriver(self.link, PivSettings.model_validate({**usual, **keys}))
        assert isinstance(self.driver.store, PivStore)
        self.store = self.driver.store

    def object(self, tag: int) -> bytes:
        """What an object of the card holds."""
        return self.card.files.objects.get(tag, b"")


def key_file(directory: Path, text: str = MANAGEMENT_KEY.hex()) -> Path:
    """The management key as it lies on the store's PC."""
    path = directory / "management.key"
    path.touch(0o600)
    path.write_text(text)
    return path


def silent(done_bytes: int, size_bytes: int) -> None:
    """Progress that nobody watches."""
