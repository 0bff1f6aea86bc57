"""Fixtures of several levels."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import MOSQUITTO, Mosquitto

if TYPE_CHECKING:
    from optima_bridge.hub import Hub


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    if MOSQUITTO is None:
        pytest.skip("the Debian package mosquitto is not installed")
    broker = Mosquitto(tmp_path / "broker")
    yield broker
    broker.stop(signal.SIGKILL)


@pytest.fixture
async def hub_and_payloads(tmp_path: Path) -> AsyncIterator[tuple[Hub, list[dict[str, Any]]]]:
    """A hub on a real journal, and the payloads of what it records."""
    from tests.nodes import journaled_hub

    async with journaled_hub(tmp_path / "state") as both:
        yield both
