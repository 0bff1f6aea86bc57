"""Card readers through the PC/SC daemon (pcscd) and pyscard's flat ``smartcard.scard``.

    pcsc:READER NAME        whole, or a part of it that fits one reader only

pcsclite's calls block, so two threads make them: one waits for changes of the reader in a context of its own, one does
everything else in the order in which it is asked. What a cancelled caller began is ended there, behind what is under way.
Source: PC/SC part 5 (ICC resource manager), pcsclite's winscard.h.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from optima_bridge.errors import BridgeError, LinkBusy, LinkError, LinkLost, LinkTimeout
from optima_bridge.link.card import CardSession, CardState, converse
from optima_bridge.link.pcsc_errors import (
    BUSY,
    NO_READERS,
    NOT_TRANSACTED,
    STOPPED,
    SUCCESS,
    TIMED_OUT,
    choose_reader,
    failure,
    name_users,
    not_running,
)

BUSY_TIMEOUT_S = 5.0  # how long another program may keep the card
BUSY_PAUSE_S = 0.05
ANSWER_TIMEOUT_S = 30.0  # a card that makes a key takes seconds; the reader's driver gives up by itself before
OPEN_TIMEOUT_S = 5.0
WATCH_MS = 60_000
CANCEL_PAUSE_S = 0.02

T = TypeVar("T")


class PcscLink:
    """An open reader; made by `open`."""

    def __init__(self, port: str, reader: _Reader, thread: _Thread) -> None:
        self.name = port
        self.reader = reader.name
        self._reader = reader
        self._thread = thread
        self._turn = asyncio.Lock()
        self._state: CardState | None = None
        self._error: BridgeError | None = None
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        watch = partial(_watch, reader, partial(_tell, loop, self._is_now), partial(_tell, loop, self._lose))
        threading.Thread(target=watch, name=f"watches {port}", daemon=True).start()

    @classmethod
    async def open(cls, port: str) -> PcscLink:
        """Find the reader.

        Raises:
            LinkNotFound: there is none of that name, several fit, or no daemon answers.
            LinkPermission, LinkError: the daemon refuses; pyscard is not installed.
        """
        reader = _Reader(await asyncio.to_thread(_load_scard), port.partition(":")[2])
        thread = _Thread(f"uses {port}")
        with ExitStack() as undo:
            undo.callback(thread.end)
            undo.callback(thread.post, reader.close)
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await thread.call(reader.open)
            except TimeoutError as error:
                raise LinkTimeout(f"{port}: the PC/SC daemon does not answer within {OPEN_TIMEOUT_S:.0f} s") from error
            await _not_waited_for(reader.name)
            undo.pop_all()
        return cls(port, reader, thread)

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def wait(self, seen: CardState | None = None) -> CardState:
        while True:
            if self._error:
                raise self._error
            if self._state is not None and self._state != seen:
                return self._state
            self._changed.clear()
            await self._changed.wait()

    @asynccontextmanager
    async def session(self, *, reset: bool = True) -> AsyncIterator[CardSession]:
        if self._error:
            raise self._error
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_S):
                await self._turn.acquire()
        except TimeoutError as error:
            raise LinkBusy(f"{self.reader} is in use by this very program", cause="another job has the card") from error
        try:
            await self._connect()
            yield self
        finally:
            self._thread.post(partial(self._reader.release, reset))
            self._turn.release()

    async def transmit(self, apdu: bytes) -> bytes:
        """See `CardSession`; within a session only."""
        if self._error:
            raise self._error
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._thread.call(partial(converse, apdu, self._reader.transmit))
        except TimeoutError as error:
            raise LinkTimeout(f"{self.reader}: the card gave no answer within {ANSWER_TIMEOUT_S:.0f} s") from error

    def close(self) -> None:
        if not isinstance(self._error, _Closed):
            self._lose(_Closed(f"{self.name} was closed"))
            threading.Thread(target=self._reader.unwatch, name=f"closes {self.name}", daemon=True).start()
            self._thread.post(self._reader.close)
            self._thread.end()
            _closed[self.reader] = self._thread

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(BUSY_TIMEOUT_S):
                while not await self._thread.call(self._reader.connect):  # noqa: ASYNC110 - another program
                    await asyncio.sleep(BUSY_PAUSE_S)
        except TimeoutError as error:
            raise await asyncio.to_thread(name_users, self.reader) from error

    def _is_now(self, state: CardState) -> None:
        self._state = state
        self._changed.set()

    def _lose(self, error: BridgeError) -> None:
        self._error = self._error if isinstance(self._error, _Closed) else error
        self._changed.set()


class _Closed(LinkLost):
    """We gave the reader back ourselves."""


class _Thread:
    """Makes blocking calls, one after the other."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any] | None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, function: Callable[[], None]) -> None:
        """Have it called when its turn comes."""
        self._calls.put((function, None))

    async def call(self, function: Callable[[], T]) -> T:
        """What it returns or raises. Cancelled, it is not called any more, or goes on with nobody waiting."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._calls.put((function, future))
        return await future

    @property
    def is_alive(self) -> bool:
        """Whether a call is under way, or may come."""
        return self._thread.is_alive()

    def end(self) -> None:
        """End after the last call."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, future = call
            result, error = None, None
            if future is None or not future.cancelled():
                try:
                    result = function()
                except BaseException as caught:  # noqa: BLE001 - passed on to where it belongs
                    error = caught
            if future is not None:
                _tell(future.get_loop(), partial(_settle, future), (result, error))


def _settle(future: asyncio.Future[T], outcome: tuple[T, BaseException | None]) -> None:
    result, error = outcome
    if future.done():
        return  # cancelled
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class _Reader:
    """One reader and its card. Lives on one thread, but for `name` and `watch_context`."""

    def __init__(self, scard: Any, wanted: str) -> None:
        self.scard = scard
        self.name = wanted
        self.closed = False
        self.watch_context: Any = None
        self._card: Any = None
        self._protocol: Any = None
        self._in_transaction = False
        self._context: Any = None

    def open(self) -> None:
        """Find the reader that is meant."""
        self._context = self.new_context()
        code, names = self._call(self.scard.SCardListReaders, self._context, [])
        if code != NO_READERS:
            self._check(code)
        self.name = choose_reader(self.name, names if code == SUCCESS else [])

    def new_context(self) -> Any:
        """A connection to the daemon."""
        code, context = self._call(self.scard.SCardEstablishContext, self.scard.SCARD_SCOPE_SYSTEM)
        if isinstance(error := failure(code, self.name), LinkLost):
            raise not_running() from error
        self._check(code)
        return context

    def connect(self) -> bool:
        """Get the card and keep others from it; False where another program keeps it for itself. Waits for its transaction."""
        scard = self.scard
        either = scard.SCARD_PROTOCOL_T0 | scard.SCARD_PROTOCOL_T1
        code, card, self._protocol = self._call(
            scard.SCardConnect, self._context, self.name, scard.SCARD_SHARE_SHARED, either
        )
        if code == BUSY:
            return False
        self._check(code)
        self._card = card
        self._check(self._call(scard.SCardBeginTransaction, card)[0])
        self._in_transaction = True
        return True

    def transmit(self, apdu: bytes) -> bytes:
        """One command and its answer."""
        is_t0 = self._protocol == self.scard.SCARD_PROTOCOL_T0
        header = self.scard.SCARD_PCI_T0 if is_t0 else self.scard.SCARD_PCI_T1
        code, answer = self._call(
            self.scard.SCardTransmit, self._card, header, list(_without_le(apdu) if is_t0 else apdu)
        )
        self._check(code or (SUCCESS if answer else NOT_TRANSACTED))  # some readers' drivers call no answer a success
        return bytes(answer)

    def release(self, reset: bool) -> None:
        """Give the card back, if we have it; it may be gone, so codes say nothing."""
        if self._card is None:
            return
        scard, card, self._card = self.scard, self._card, None
        if self._in_transaction:
            self._in_transaction = False
            scard.SCardEndTransaction(card, scard.SCARD_RESET_CARD if reset else scard.SCARD_LEAVE_CARD)
        scard.SCardDisconnect(card, scard.SCARD_LEAVE_CARD)

    def unwatch(self) -> None:
        """Have who waits for changes end; on a thread of its own. A cancel that comes just before the wait begins is lost."""
        self.closed = True
        while (context := self.watch_context) is not None:
            self.scard.SCardCancel(context)
            time.sleep(CANCEL_PAUSE_S)

    def close(self) -> None:
        """Give the reader back. Not while a call is under way: then pcsclite would make all of this process wait for it."""
        if self._context is not None:
            self.scard.SCardReleaseContext(self._context)

    def changed(self, context: Any, state: int) -> tuple[int, CardState] | None:
        """Wait until the reader is in another state than `state`; None: it still is.

        Raises:
            LinkLost: it is gone, or the daemon is.
        """
        scard = self.scard
        code, states = self._call(scard.SCardGetStatusChange, context, WATCH_MS, [(self.name, state)])
        if code == TIMED_OUT:
            return None
        if code != SUCCESS:  # a daemon that is being stopped says this and that, that we had no permission among it
            error = failure(code, self.name)
            raise error if isinstance(error, LinkLost) else failure(STOPPED, self.name)
        [(_, state, atr)] = states
        if state & (scard.SCARD_STATE_UNKNOWN | scard.SCARD_STATE_UNAVAILABLE):
            raise LinkLost(f"the reader {self.name} is gone")
        there = state & scard.SCARD_STATE_PRESENT
        mute = state & scard.SCARD_STATE_MUTE
        now = CardState((b"" if mute else bytes(atr)) if there else None, state >> 16 & 0xFFFF)
        return state & ~scard.SCARD_STATE_CHANGED, now

    def _call(self, function: Callable[..., Any], *args: Any) -> Sequence[Any]:
        """Call pcsclite; the first value is the return code, unsigned."""
        result = function(*args)
        code, *values = result if isinstance(result, list | tuple) else [result]
        return [code & 0xFFFFFFFF, *values]

    def _check(self, code: int) -> None:
        if code != SUCCESS:
            raise failure(code, self.name, self.scard.SCardGetErrorMessage(code))


_closed: dict[str, _Thread] = {}
"""Of each reader, the thread of the link that was closed last. SCardConnect waits without bounds for another program's
transaction, and so does its thread then; if each try left one behind, pcscd would soon have no room for anybody."""


async def _not_waited_for(reader: str) -> None:
    """Raises LinkBusy: a link that was closed still waits for this reader."""
    try:
        async with asyncio.timeout(BUSY_TIMEOUT_S):
            while (earlier := _closed.get(reader)) and earlier.is_alive:  # noqa: ASYNC110 - a thread of pcsclite
                await asyncio.sleep(BUSY_PAUSE_S)
    except TimeoutError as error:
        raise await asyncio.to_thread(name_users, reader) from error
    _closed.pop(reader, None)


def _watch(reader: _Reader, tell: Callable[[CardState], None], lose: Callable[[BridgeError], None]) -> None:
    """Tell each state of the reader, until it is gone or closed; runs on a thread of its own."""
    try:
        context = reader.watch_context = reader.new_context()
    except BridgeError as error:
        lose(error)
        return
    try:
        state = reader.scard.SCARD_STATE_UNAWARE
        while not reader.closed:
            if (changed := reader.changed(context, state)) is not None:
                state, now = changed
                tell(now)
    except BridgeError as error:
        lose(error)
    finally:
        reader.watch_context = None
        reader.scard.SCardReleaseContext(context)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[T], None], news: T) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
        loop.call_soon_threadsafe(function, news)


def _without_le(apdu: bytes) -> bytes:
    """A command as T=0 carries it: with data there is no room for Le; the card says by 61xx how much it has to tell."""
    return apdu[: 5 + apdu[4]] if len(apdu) > 5 else apdu


def _load_scard() -> Any:
    try:
        return importlib.import_module("smartcard.scard")
    except ImportError as error:
        raise LinkError(
            f"pyscard cannot be used: {error}",
            cause="the extra that PC/SC readers need is not installed",
            next_step="sudo apt install swig gcc libpcsclite-dev python3-dev, "
            "then: pip install 'optima-bridge[pcsc]' (it is built from source)",
        ) from error
