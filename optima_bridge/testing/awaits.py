"""Doing something at each await of a coroutine in turn: pulling the plug, cancelling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")
LIMIT_S = 20.0  # a scenario that takes longer hangs


class AtAwait:
    """Awaits `inner`; where it is suspended for the `k`-th time, calls `act`, and remembers that it was `reached`."""

    def __init__(self, inner: Awaitable[object], k: int, act: Callable[[], object]) -> None:
        self._inner, self._k, self._act = inner, k, act
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self._inner.__await__()
        step: Callable[[], Any] = partial(next, inner)
        suspensions = 0
        while True:
            try:
                waits_for = step()
            except StopIteration:
                return
            suspensions += 1
            if suspensions == self._k:
                self.reached = True
                self._act()
            try:
                step = partial(inner.send, (yield waits_for))
            except BaseException as error:  # noqa: BLE001 - passed on to where it belongs
                step = partial(inner.throw, error)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run the scenario in an event loop of its own; one that hangs fails."""

    async def bounded() -> T:
        limit = asyncio.timeout(LIMIT_S)
        try:
            async with limit:
                return await scenario
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise AssertionError(f"no end within {LIMIT_S:g} s: start(), events() or stop() hangs") from error

    return asyncio.run(bounded())


def at_every_await(scenario: Callable[[int], Coroutine[Any, Any, bool]]) -> int:
    """Run the scenario for k = 1, 2, … while its k-th await is reached; returns how many there are."""
    for k in count(1):
        if not run(scenario(k)):
            return k - 1
    raise AssertionError


async def cancelled_at(inner: Awaitable[object], k: int) -> bool:
    """Cancel `inner` at its k-th await; returns whether it has that many."""

    async def watched() -> None:
        await at_await

    at_await = AtAwait(inner, k, lambda: task.cancel())  # noqa: PLW0108 - there is no task yet
    task = asyncio.create_task(watched())
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()  # raises what went wrong
    assert task.cancelled() == at_await.reached, "a cancellation must not be swallowed"
    return at_await.reached
