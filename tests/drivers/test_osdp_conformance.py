"""The OSDP driver keeps the driver contract, in the clear and in a secure channel."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from optima_bridge.model import Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_drivers.osdp import OsdpDriver
from optima_drivers.osdp.simulator import OsdpSimulator

KEY = bytes(range(16))


class TestInTheClear(DriverContract):
    case = ConformanceCase(
        driver=OsdpDriver,
        simulator=OsdpSimulator,
        provoke=lambda simulator: simulator.card("A0B0C0", bits=24),
        grants=(Subject.CARD, "presented"),
        identifier="A0B0C0",
        settings={"plain_text": True, "poll_interval_ms": 10},
    )


class TestInASecureChannel(DriverContract):
    case: ClassVar[ConformanceCase]

    @pytest.fixture(autouse=True)
    def _key(self, tmp_path: Path) -> None:
        file = tmp_path / "scbk"
        file.write_text(KEY.hex())
        file.chmod(0o600)
        type(self).case = ConformanceCase(
            driver=OsdpDriver,
            simulator=lambda: OsdpSimulator(key=KEY),
            provoke=lambda simulator: simulator.card("A0B0C0", bits=24),
            grants=(Subject.CARD, "presented"),
            identifier="A0B0C0",
            settings={"scbk": {"file": str(file)}, "poll_interval_ms": 10},
        )
