"""The control API over its real socket: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from optima_bridge.api import guard, server, words
from optima_bridge.api.routes import ROUTES
from optima_bridge.model import Subject
from tests.unit.api_store import KEY, Store


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store() as store:
        yield store


async def test_every_route_of_the_app_is_in_the_table(store: Store) -> None:
    app = server.make_app(store.service)
    served = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert served == {(route.method, route.path) for route in ROUTES.values()}


async def test_a_route_that_is_not_in_the_table_is_refused_even_to_root(store: Store) -> None:
    async def secret(request: web.Request) -> web.Response:
        return web.Response(text="secret")

    app = server.make_app(store.service)
    app.router.add_get("/v1/secret", secret)
    app.router.add_get("/v1/named", secret, name="unlisted")
    runner = server.make_runner(app)
    await runner.setup()
    store.socket = store.directory / "other.sock"
    await web.UnixSite(runner, str(store.socket)).start()
    try:
        assert [(await store.ask("GET", path))[0] for path in ("/v1/secret", "/v1/named", "/v1/version")] == [
            403,
            403,
            200,
        ]
    finally:
        await runner.cleanup()


async def test_a_client_without_peer_credentials_is_refused(store: Store) -> None:
    runner = server.make_runner(server.make_app(store.service))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    finally:
        await runner.cleanup()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "E-DENIED"


async def test_what_is_true_can_be_read(store: Store) -> None:
    store.simulator.key_in(KEY)
    await store.until(lambda: store.service.hub.state_of("front")["key"].get("presence") == "present")
    status, document = await store.ask("GET", "/v1/status")
    assert (status, document["schema"], document["ready"], document["site"]) == (200, "optima.status/1", True, "s1")
    status, document = await store.ask("GET", "/v1/devices")
    assert (status, [device["name"] for device in document["devices"]]) == (200, ["front"])
    status, document = await store.ask("GET", "/v1/devices/front")
    assert (status, document["schema"], document["link"]) == (200, "optima.device/1", "up")
    assert document["state"]["key"]["presence"] == "present"
    assert KEY not in json.dumps(document)
    status, document = await store.ask("GET", "/v1/version")
    assert (status, document["api"], document["driver_contract"]) == (200, 1, 1)


async def test_the_configuration_is_shown_with_secrets_as_references(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    async with Store(extra=f'[identifiers]\nsecret = {{ file = "{secret}" }}\n') as store:
        status, document = await store.ask("GET", "/v1/config")
    assert (status, document["schema"]) == (200, "optima.config/1")
    assert document["config"]["identifiers"]["secret"] == {"file": str(secret)}
    assert "hunter2" not in json.dumps(document)


WRONG_QUESTIONS = [
    ("GET", "/v1/devices/frnt", b"", 404, "E-NOT-FOUND"),
    ("GET", "/v1/devices/%00%1b", b"", 404, "E-NOT-FOUND"),
    ("GET", "/", b"", 404, "E-NOT-FOUND"),
    ("GET", "/v1/../etc/passwd", b"", 404, "E-NOT-FOUND"),
    ("POST", "/v1/status", b"", 405, "E-USAGE"),
    ("POST", "/v1/replay", b"", 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":1,', 400, "E-USAGE"),
    ("POST", "/v1/replay", b"\xff\xfe", 400, "E-USAGE"),
    ("POST", "/v1/replay", b"[" * 60_000, 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":1,"to":2,"too":3}', 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":"1","to":2}', 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":0,"to":2}', 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":1,"to":1e99}', 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":3,"to":2}', 400, "E-USAGE"),
    ("POST", "/v1/replay", b'{"from":1,"to":2}', 503, "E-SINK"),
    ("POST", "/v1/replay", b" " * (guard.MAX_BODY_BYTES + 1), 413, "E-USAGE"),
    ("GET", "/v1/status", b" " * (guard.MAX_BODY_BYTES + 1), 413, "E-USAGE"),
    ("GET", "/v1/events?since=yesterday", b"", 400, "E-USAGE"),
    ("GET", "/v1/events?since=" + "9" * 99, b"", 400, "E-USAGE"),
    ("GET", "/v1/events?snapshot=yes", b"", 400, "E-USAGE"),
    ("GET", "/v1/events?types=key,kard", b"", 400, "E-USAGE"),
    ("GET", "/v1/events?devices=back", b"", 404, "E-NOT-FOUND"),
    ("GET", "/v1/events?form=1", b"", 400, "E-USAGE"),
]


async def test_a_wrong_question_gets_an_error_that_helps(store: Store) -> None:
    answers = [(case, *await store.ask(*case[:3])) for case in WRONG_QUESTIONS]
    assert [(*case[:3], status, document["code"]) for case, status, document in answers] == WRONG_QUESTIONS
    assert all(document["what"] and document["cause"] and document["next"] for _, _, document in answers)
    assert (await store.talk(b"HEAD /v1/status HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 405 ")


NOISE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v1/replay HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 500 + b"\r\n",
]


async def test_what_is_not_http_gets_a_400_and_no_traceback(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    answers = [await store.talk(noise) for noise in NOISE]
    assert [answer.split(b" ")[1] for answer in answers] == [b"400"] * len(NOISE)
    assert [line.getMessage() for line in caplog.records if line.exc_info] == []
    assert (await store.ask("GET", "/v1/version"))[0] == 200


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_TIMEOUT_S", 0.1)
    async with Store() as store:
        assert await store.talk(b"") == b""
        assert await store.talk(b"GET /v1/st") == b""


async def test_a_body_that_does_not_come_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.1)
    answer = await store.talk(b"POST /v1/replay HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_both_ends_know_the_same_event_types() -> None:
    assert tuple(words.EVENT_TYPES) == tuple(subject.value for subject in Subject)


def test_the_documented_routes_and_roles_are_those_of_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/control-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| (\w+) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted((it.method, it.path, it.role.name.lower()) for it in ROUTES.values())
