"""The link of contract tests keeps what the real ones keep."""

from __future__ import annotations

import asyncio

import pytest

from optima_bridge.errors import LinkLost
from optima_bridge.link import memory_pair


async def test_a_read_of_a_lost_link_lets_others_run_and_can_be_cancelled() -> None:
    link, peer = memory_pair()
    peer.unplug()
    read = asyncio.create_task(link.read())
    await asyncio.sleep(0)
    assert not read.done()
    read.cancel()
    with pytest.raises(asyncio.CancelledError):
        await read


async def test_a_lost_link_gives_what_had_arrived_and_then_is_gone() -> None:
    link, peer = memory_pair()
    peer.feed(b"last words")
    peer.unplug()
    assert await link.read() == b"last words"
    with pytest.raises(LinkLost):
        await link.read()
