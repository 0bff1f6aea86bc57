"""Waits that share timers: each ends in its own time, whoever else waits with it or gives up."""

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.beat import SharedTimers, pause, shared_timers
from tests.virtual_time import VirtualTimeLoop, run


class CountingLoop(VirtualTimeLoop):
    """Counts its timers."""

    timers = 0

    def call_at(self, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        self.timers += 1
        return super().call_at(*args, **options)


async def wait(timeout_s: float) -> float:
    """Until it is over or the task is cancelled; returns when it was."""
    await pause(timeout_s)
    return asyncio.get_running_loop().time()


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=20))
def test_each_wait_ends_in_its_time_and_at_most_a_millisecond_late(timeouts_us: list[int]) -> None:
    async def main() -> list[float]:
        return await asyncio.gather(*(wait(timeout_us / 1e6) for timeout_us in timeouts_us))

    for timeout_us, ended_s in zip(timeouts_us, run(main()), strict=True):
        assert -1e-9 <= ended_s - timeout_us / 1e6 <= 0.001 + 1e-9


def test_waits_for_the_same_moment_share_a_timer() -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:

        async def main() -> None:
            await asyncio.gather(*(wait(0.1 + number / 1e7) for number in range(100)))

        runner.run(main())
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        assert loop.timers <= 2  # the hundred end within 10 µs, which may be the end of one millisecond and the next


@pytest.mark.parametrize("cancelled", [[0], [1, 2], [0, 1, 2]])
def test_who_gives_up_takes_nobody_along(cancelled: list[int]) -> None:
    async def main() -> float:
        tasks = [asyncio.create_task(wait(0.2)) for _ in range(3)]
        await asyncio.sleep(0.1)
        for number in cancelled:
            tasks[number].cancel()
        for number, task in enumerate(tasks):
            with contextlib.suppress(asyncio.CancelledError):
                assert await task >= 0.2
                assert number not in cancelled
        return await wait(0.2)  # and the same moment can be waited for again

    assert run(main()) >= 0.3


def test_each_loop_has_its_own() -> None:
    async def main() -> SharedTimers:
        await wait(0.01)
        return shared_timers()

    assert run(main()) is not run(main())
