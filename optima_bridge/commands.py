"""Requests over MQTT: ``cmd/bridge/{ping,get,replay}``. They only observe; whatever changes a device is not offered here.

A request is a JSON object ``{"req": id, "by": requester, "exp": RFC 3339 or unix seconds, "args": {…}}``. Each rejection
has its own code. A retained request would run again at every reconnect, so it is refused; so is one that has expired.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import msgspec

from optima_bridge.errors import BridgeError, SinkError
from optima_bridge.hub import Hub
from optima_bridge.log import get_logger
from optima_bridge.model import JsonValue
from optima_bridge.topics import is_segment

MAX_REQUEST_BYTES = 16384
REMEMBERED = 256

log = get_logger(__name__)


class ReplayArguments(msgspec.Struct, frozen=True, rename={"first": "from", "last": "to"}):
    """Sequence numbers, both ends included; `epoch` 0 means the present one, `last` 0 means to the end."""

    first: int = 1
    last: int = 0
    epoch: int = 0


class Request(msgspec.Struct, frozen=True):
    """A request as it comes in."""

    req: str
    by: str = "anonymous"
    exp: str | float | None = None
    args: ReplayArguments = ReplayArguments()


class Rejected(Exception):
    """Why a request is not carried out; the code is stable."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Commands:
    """Answers requests to this node.

    Args:
        hub: what is true, and the clock.
        reply: sends (topic, payload).
        replay: sends the records between two positions once more; raises SinkError.
    """

    def __init__(
        self,
        hub: Hub,
        reply: Callable[[str, bytes], None],
        replay: Callable[[tuple[int, int], tuple[int, int]], None],
    ) -> None:
        self._hub = hub
        self._reply = reply
        self._replay = replay
        self._answered: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._decode = msgspec.json.Decoder(Request).decode

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """Handle one request; answers on ``res/{by}/{req}`` where the request says who asks."""
        try:
            request = self._parse(payload)
        except Rejected as rejection:
            self._reject(topic, None, rejection)
            return
        stored = self._answered.get((request.by, request.req))
        if stored is not None:
            self._reply(self._hub.topics.response(request.by, request.req), stored)
            return
        try:
            result = self._obey(topic, request, retained)
        except Rejected as rejection:
            self._reject(topic, request, rejection)
        except BridgeError as error:
            self._answer(request, {"status": "failed", "code": error.code, "error": error.document()})  # type: ignore[dict-item]
        else:
            self._answer(request, {"status": "done", "result": result})
            log.info("command.taken", topic=topic, by=request.by, request=request.req)

    def _parse(self, payload: bytes) -> Request:
        if len(payload) > MAX_REQUEST_BYTES:
            raise Rejected("too-large", f"a request has at most {MAX_REQUEST_BYTES} bytes")
        try:
            request = self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected("malformed", str(error)) from error
        if not (is_segment(request.req) and is_segment(request.by)):
            raise Rejected("malformed", "req and by must be of the form [a-z0-9-]{1,32}")
        return request

    def _obey(self, topic: str, request: Request, retained: bool) -> dict[str, JsonValue]:
        if retained:
            raise Rejected("retained", "a retained request would run again at every reconnect; clear it")
        self._check_time(request)
        device, verb = topic.rsplit("/", 2)[-2:]
        return self._run(device, verb, request)

    def _reject(self, topic: str, request: Request | None, rejection: Rejected) -> None:
        log.warning("command.rejected", topic=topic, code=rejection.code, why=str(rejection))
        if request is not None:
            self._answer(request, {"status": "rejected", "code": rejection.code, "why": str(rejection)})

    def _run(self, device: str, verb: str, request: Request) -> dict[str, JsonValue]:
        hub = self._hub
        if device != "bridge" or verb not in ("ping", "get", "replay"):
            raise Rejected(
                "unknown-verb", f"there is no {device}/{verb}; there are bridge/ping, bridge/get, bridge/replay"
            )
        if verb == "ping":
            return {"epoch": hub.journal.epoch, "seq": hub.journal.head[1]}
        if verb == "get":
            for topic in tuple(hub.retained):
                hub.retain(topic, hub.retained[topic])
            return {"topics": len(hub.retained)}
        arguments = request.args
        epoch = arguments.epoch or hub.journal.epoch
        last = min((epoch, arguments.last), hub.journal.head) if arguments.last else hub.journal.head
        if epoch < 0 or arguments.first < 1 or last < (epoch, arguments.first):
            raise Rejected("bad-range", "a replay needs 1 <= from <= to, and an epoch that was")
        try:
            self._replay((epoch, arguments.first), last)
        except SinkError as error:
            raise Rejected("busy", error.what) from error
        return {"from": [epoch, arguments.first], "to": list(last)}

    def _check_time(self, request: Request) -> None:
        if request.exp is None:
            return
        try:
            if isinstance(request.exp, str):
                until = datetime.fromisoformat(request.exp)
                if until.tzinfo is None:
                    raise Rejected("malformed", "exp needs a time zone, best Z")
                expires_s = until.timestamp()
            else:
                expires_s = request.exp
        except ValueError as error:
            raise Rejected("malformed", f"exp is not a time: {error}") from error
        now_s = self._hub.clock.now()[0] / 1e9
        if now_s > expires_s:
            raise Rejected("expired", f"it was valid until {request.exp}")

    def _answer(self, request: Request, answer: dict[str, JsonValue]) -> None:
        payload = msgspec.json.encode({"req": request.req, **answer})
        self._answered[request.by, request.req] = payload
        if len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)
        self._reply(self._hub.topics.response(request.by, request.req), payload)
