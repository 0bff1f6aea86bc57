"""One PC/SC daemon for all tests below, each of which has a reader of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pcscd.daemon import Pcscd, running


@pytest.fixture(scope="session")
def daemon() -> Iterator[Pcscd]:
    with running() as pcscd:
        yield pcscd


@pytest.fixture
def pcscd(daemon: Pcscd) -> Iterator[Pcscd]:
    daemon.start()
    daemon.next_reader()
    yield daemon
    daemon.take_out()
