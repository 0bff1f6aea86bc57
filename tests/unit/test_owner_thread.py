"""The thread that owns a blocking library: order, late answers, and whose error is whose."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from optima_bridge.errors import LinkTimeout, SlotError
from optima_bridge.link.owner import OwnerThread

SOON_S, LONG_S = 0.02, 20.0


@pytest.fixture
def thread() -> OwnerThread:
    return OwnerThread("the library")


async def test_all_work_is_done_on_one_thread_in_the_order_it_came(thread: OwnerThread) -> None:
    done: list[tuple[int, int]] = []

    def work(number: int) -> None:
        done.append((number, threading.get_ident()))

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(thread.call(partial(work, number), LONG_S))
    assert [number for number, _ in done] == list(range(50))
    assert {ident for _, ident in done} == {thread.wait(threading.get_ident, LONG_S)} != {threading.get_ident()}


async def test_an_error_reaches_who_asked_and_the_thread_goes_on(thread: OwnerThread) -> None:
    def fail() -> None:
        raise SlotError("no room")

    with pytest.raises(SlotError, match="no room"):
        await thread.call(fail, LONG_S)
    with pytest.raises(SlotError, match="no room"):
        thread.wait(fail, LONG_S)
    assert await thread.call(lambda: 7, LONG_S) == 7


async def test_a_late_answer_is_a_timeout_and_what_waits_behind_it_is_never_begun(thread: OwnerThread) -> None:
    go, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go.wait(LONG_S)
        raise SlotError("nobody listens any more")

    with pytest.raises(LinkTimeout, match="the library did not answer within"):
        await thread.call(hang, SOON_S)
    done: list[str] = []
    with pytest.raises(LinkTimeout):
        await thread.call(lambda: done.append("async"), SOON_S)
    with pytest.raises(LinkTimeout):
        thread.wait(lambda: done.append("blocking"), SOON_S)
    assert begun.is_set()
    go.set()
    await thread.call(lambda: done.append("after it"), LONG_S)
    assert done == ["after it"]


async def test_a_timeout_of_the_work_itself_is_passed_on(thread: OwnerThread) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        thread.wait(fail, LONG_S)


async def test_cancelled_it_waits_for_work_that_has_begun(thread: OwnerThread) -> None:
    go, begun, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(LONG_S)
        done.set()

    task = asyncio.create_task(thread.call(work, LONG_S))
    await asyncio.to_thread(begun.wait, LONG_S)
    for _ in range(2):  # a second one must not hurry it
        task.cancel()
        await asyncio.wait({task}, timeout=SOON_S)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_cancelled_before_it_has_begun_it_is_never_done(thread: OwnerThread) -> None:
    go, done = threading.Event(), threading.Event()
    first = asyncio.create_task(thread.call(lambda: go.wait(LONG_S), LONG_S))
    second = asyncio.create_task(thread.call(done.set, LONG_S))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    assert await first
    thread.wait(lambda: None, LONG_S)
    assert not done.is_set()
