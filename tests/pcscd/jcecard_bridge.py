"""The card of jcecard (others wrote it: OpenPGP and PIV in one) as a card for vpcd's readers."""

from __future__ import annotations

import logging
from pathlib import Path

from jcecard.main import OpenPGPCard


class JceCard:
    """One card; its objects last as long as it does, its file is in `directory`."""

    def __init__(self, directory: Path) -> None:
        logging.getLogger("jcecard").setLevel(logging.WARNING)
        self._card = OpenPGPCard(storage_path=directory)
        self.atr: bytes = self._card.get_atr()

    def reset(self) -> None:
        self._card.reset()

    def exchange(self, apdu: bytes) -> bytes:
        answer: bytes = self._card.process_apdu(apdu)
        return answer
