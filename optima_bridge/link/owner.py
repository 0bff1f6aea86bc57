"""One thread that owns a blocking library: every call into it runs there, one at a time, in the order they came."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Any, TypeVar

from optima_bridge.errors import LinkTimeout

T = TypeVar("T")


class OwnerThread:
    """Lives as long as the process, as the library does. A daemon: a call that hangs must not hold up the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done after all that was submitted before."""
        answer: Future[T] = Future()
        self._calls.put((answer, work))
        return answer

    def wait(self, work: Callable[[], T], timeout_s: float) -> T:
        """`work` done, from a thread that may block.

        Raises:
            LinkTimeout: not in time. If it had not begun it never will.
        """
        answer = self.submit(work)
        try:
            return answer.result(timeout_s)
        except FutureTimeoutError as error:
            if answer.done() and not answer.cancelled():
                return answer.result()  # it came just now, or the timeout is its own
            answer.cancel()
            raise self._late(timeout_s) from error

    async def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """`work` done, from a coroutine. Cancelled, it waits for the end of work that has begun, as long as ever.

        Raises:
            LinkTimeout: as for `wait`.
        """
        answer = self.submit(work)
        waiting = asyncio.wrap_future(answer)
        waiting.add_done_callback(_retrieve)
        late_s = asyncio.get_running_loop().time() + timeout_s
        cancelled: asyncio.CancelledError | None = None
        while not waiting.done() and (left_s := late_s - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.wait({waiting}, timeout=left_s)
            except asyncio.CancelledError as error:
                cancelled = error
                if answer.cancel():
                    break
        if cancelled is not None:
            raise cancelled
        if not waiting.done():
            answer.cancel()
            raise self._late(timeout_s)
        return waiting.result()

    def _run(self) -> None:
        while True:
            answer, work = self._calls.get()
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - passed on to who asked
                answer.set_exception(error)
            else:
                answer.set_result(result)
            del answer, work

    def _late(self, timeout_s: float) -> LinkTimeout:
        return LinkTimeout(f"{self._name} did not answer within {timeout_s:.0f} s")


def _retrieve(waiting: asyncio.Future[Any]) -> None:
    """What nobody waits for any more is no news."""
    if not waiting.cancelled():
        waiting.exception()
