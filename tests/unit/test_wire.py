"""The wire of a device, from the tap on its link over the control API to the file: heard whole, masked at the source."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import Field

from optima_bridge import playback
from optima_bridge.driver import DriverInfo, DriverSettings, wire_may_hold_secrets
from optima_bridge.errors import LinkLost
from optima_bridge.link import memory_pair
from optima_bridge.link.tap import MAX_OPENING_BYTES, MAX_OPENING_PIECES, Piece, Wire
from optima_bridge.model import Capability
from optima_bridge.secrets import Secret
from optima_drivers._template import TemplateDriver
from optima_drivers.loopback import LoopbackDriver
from tests.unit.api_store import BRIDGE, KEY, Store, bridge

LIMIT_S = 30


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store() as store:
        yield store


def bytes_of(pieces: list[Piece]) -> list[tuple[str, str, int]]:
    return [(piece.dir, piece.hex, piece.size) for piece in pieces if piece.dir]


# The tap


async def test_both_directions_are_heard_and_the_link_works_as_before() -> None:
    link, peer = memory_pair()
    wire, pieces = Wire(), list[Piece]()
    tapped = wire.tap(link)
    wire.started()
    stop = wire.listen(pieces.append)
    peer.on_write = peer.feed
    await tapped.write(b"\x01\xff")
    await tapped.send_break()
    assert (await tapped.read(), tapped.name) == (b"\x01\xff", link.name)
    wire.told("key", "inserted")
    stop()
    await tapped.write(b"\x02")
    assert (tapped.discard_input(), bytes(peer.written)) == (1, b"\x01\xff\x02")
    tapped.close()
    with pytest.raises(LinkLost):
        await tapped.read()
    assert bytes_of(pieces) == [("out", "01ff", 0), ("in", "01ff", 0)]
    assert (pieces[-1].subject, pieces[-1].action) == ("key", "inserted")
    assert [piece.t_ms for piece in pieces] == sorted(piece.t_ms for piece in pieces)


async def test_what_else_a_link_can_do_passes_by() -> None:
    link, _ = memory_pair()
    tapped: Any = Wire().tap(link)
    assert tapped.closed is False
    with pytest.raises(AttributeError):
        _ = tapped.no_such_thing


async def test_how_a_driver_began_is_told_to_who_comes_later_without_the_time_between() -> None:
    now_ns = 5_000_000
    link, _ = memory_pair(clock_ns=lambda: now_ns)
    wire = Wire()
    tapped = wire.tap(link)
    await tapped.write(b"\x01")
    now_ns += 2_000_000
    await tapped.write(b"\x02")
    wire.started()
    now_ns += 3_600_000_000_000
    await tapped.write(b"\x03")
    pieces: list[Piece] = []
    wire.listen(pieces.append)
    now_ns += 1_000_000
    await tapped.write(b"\x04")
    assert pieces == [Piece(0, "out", "01"), Piece(2, "out", "02"), Piece(3, "out", "04")]


@pytest.mark.parametrize(("number", "size"), [(MAX_OPENING_PIECES + 1, 1), (2, MAX_OPENING_BYTES // 2 + 1)])
async def test_a_beginning_without_end_is_not_kept(number: int, size: int) -> None:
    link, _ = memory_pair()
    wire, pieces = Wire(), list[Piece]()
    tapped = wire.tap(link)
    for _ in range(number):
        await tapped.write(bytes(size))
    wire.listen(pieces.append)
    assert pieces == []
    await tapped.write(b"\x01")
    assert bytes_of(pieces) == [("out", "01", 0)]


async def test_the_end_of_a_driver_is_told_and_its_beginning_forgotten() -> None:
    wire, pieces, later = Wire(), list[Piece](), list[Piece]()
    tapped = wire.tap(memory_pair()[0])
    await tapped.write(b"\x01")
    wire.listen(pieces.append)
    tapped.close()
    wire.listen(later.append)
    wire.tap(memory_pair()[0])
    assert [piece.link for piece in pieces] == ["", "closed", "opened"]
    assert [piece.link for piece in later] == ["opened"]


async def test_a_masked_wire_tells_how_many_bytes_and_never_which() -> None:
    link, peer = memory_pair()
    wire, pieces = Wire(masked=True), list[Piece]()
    tapped = wire.tap(link)
    await tapped.write(b"secret")
    wire.listen(pieces.append)
    peer.feed(b"answer!")
    await tapped.read()
    assert bytes_of(pieces) == [("out", "", 6), ("in", "", 7)]
    assert b"736563726574" not in msgspec.json.encode(pieces)


class OwnSettings(DriverSettings):
    retries: int = Field(default=1, description="how often")


class Nested(DriverSettings):
    keys: tuple[Secret, ...] = Field(default=(), description="keys")


class SecretSettings(DriverSettings):
    nested: Nested | None = Field(default=None, description="a table with keys in it")


@pytest.mark.parametrize(
    ("capability", "settings", "is_public", "masked"),
    [
        (Capability.SEAL_SWITCH, OwnSettings, False, False),
        (Capability.SEAL_SWITCH, SecretSettings, False, True),
        (Capability.SEAL_SWITCH, SecretSettings, True, False),
        (Capability.SECURE_STORE, OwnSettings, False, True),
        (Capability.SECURE_STORE, OwnSettings, True, False),
    ],
)
def test_bytes_are_masked_where_secrets_may_be(
    capability: Capability, settings: type[DriverSettings], is_public: bool, masked: bool
) -> None:
    class Driver(TemplateDriver):
        info: ClassVar[DriverInfo] = msgspec.structs.replace(
            TemplateDriver.info, capabilities=frozenset({capability}), wire_is_public=is_public
        )
        Settings: ClassVar[type[DriverSettings]] = settings

    assert wire_may_hold_secrets(Driver) is masked


# The control API


async def heard(store: Store) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, dict[str, Any]]:
    """The stream behind its first line, and that line."""
    reader, writer = await asyncio.open_unix_connection(store.socket)
    writer.write(b"GET /v1/devices/front/wire HTTP/1.0\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.split()[1] == b"200"
        return reader, writer, json.loads(await reader.readline())


async def test_a_stream_has_a_header_then_bytes_and_events_and_ends_with_the_daemon(store: Store) -> None:
    reader, writer, header = await heard(store)
    assert (header["schema"], header["driver"], header["masked"]) == ("optima.wire/1", "loopback", False)
    assert "identifiers" in header["notice"]
    assert '"wire.heard"' in store.service.audit.path.read_text()
    store.simulator.key_in(KEY)
    await store.until(lambda: store.service.hub.state_of("front")["key"].get("presence") == "present")
    await store.stop()
    async with asyncio.timeout(LIMIT_S):
        lines = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    assert next(line for line in lines if "subject" in line)["action"] == "inserted"
    assert KEY.encode().hex() in "".join(line.get("hex", "") for line in lines if line.get("dir") == "in")
    assert (lines[-1]["type"], lines[-1]["rc"]) == ("result", 8)
    assert lines[-2]["link"] == "closed"


async def test_where_secrets_may_be_no_byte_leaves_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoopbackDriver, "info", msgspec.structs.replace(LoopbackDriver.info, wire_is_public=False))
    async with Store() as store:
        reader, writer, header = await heard(store)
        assert header["masked"] is True
        assert "identifiers" not in header["notice"]
        assert "how many bytes there are, not which" in header["notice"]
        store.simulator.key_in(KEY)
        await store.until(lambda: store.service.hub.state_of("front")["key"].get("presence") == "present")
        await store.stop()
        text = await reader.read()
        writer.close()
    assert b'"size":' in text
    assert b'"hex"' not in text


async def test_an_unknown_device_and_one_without_bytes_are_refused(store: Store) -> None:
    status, error = await store.ask("GET", "/v1/devices/nobody/wire")
    assert (status, error["code"]) == (404, "E-NOT-FOUND")
    store.service.keepers["front"].wire = None
    status, error = await store.ask("GET", "/v1/devices/front/wire")
    assert (status, error["what"]) == (400, "front is no byte pipe, so nothing can be recorded")


# The command line


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does to a file."""
    while not holds():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.02)


async def recorded(store: Store, file: Path, *options: str) -> tuple[int, str]:
    """Record while a key comes and goes, until Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *BRIDGE,
        *("record", "front", "-o", str(file), "--socket", str(store.socket), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        if "--json" in options:
            await until(file.exists)
        else:
            assert b"identifiers of keys and cards are in here" in await process.stderr.readline()
        store.simulator.key_in(KEY)
        await until(lambda: '"inserted"' in file.read_text())
        store.simulator.key_out()
        await until(lambda: '"removed"' in file.read_text())
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert err == b""
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_what_is_recorded_is_private_and_replays_with_the_same_events(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    status, out = await recorded(store, file)
    assert status == 0
    assert out.endswith(" 2 events\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    status, out, err = await bridge("replay", str(file), "--assert")
    *events, last = out.splitlines()
    assert (status, [line.split()[1:] for line in events]) == (0, [["key", "inserted"], ["key", "removed"]])
    assert last == f"{file}: 2 events, all as recorded"
    assert (err, KEY in out) == ("", False)
    status, _, err = await bridge("record", "front", "-o", str(file), "--socket", str(store.socket))
    assert (status, "cannot be written: file exists" in err) == (2, True)


async def test_settings_that_are_none_of_the_driver_are_said_as_config_check_says_them(tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    header = {"schema": "optima.wire/1", "device": "front", "driver": "rdm6300", "masked": False}
    file.write_text(json.dumps({**header, "settings": {"hold_ms": "x", "hold_sm": 1}}) + "\n")
    status, _, err = await bridge("replay", str(file))
    assert status == 2
    assert f'{file}, line 1, settings: hold_ms = "x": must be a whole number, ' in err
    assert f'{file}, line 1, settings: hold_sm: unknown key (did you mean "hold_ms"?)' in err
    assert "bridge drivers show rdm6300" in err


async def test_a_recording_without_bytes_asserts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    header = {"schema": "optima.wire/1", "device": "front", "driver": "loopback", "masked": False, "settings": {}}
    for rest in ("", '{"t_ms": 0, "link": "opened"}\n'):
        file.write_text(json.dumps(header) + "\n" + rest)
        status, _, err = await bridge("replay", str(file), "--assert")
        assert (status, "has no bytes in it" in err) == (2, True)
        assert (await bridge("replay", str(file)))[0] == 0


async def test_other_events_than_recorded_are_status_10(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    status, out = await recorded(store, file, "--json")
    assert (status, json.loads(out)["events"]) == (0, 2)
    text = file.read_text()
    file.write_text(text.replace('"inserted"', '"presented"'))
    status, out, _ = await bridge("replay", str(file), "--assert", "--json")
    assert status == 10
    *events, result = [json.loads(line) for line in out.splitlines()]
    assert [event["action"] for event in events] == ["inserted", "removed"]
    assert result["error"]["code"] == "E-REPLAY-DIFFERS"
    assert result["error"]["what"].endswith("event 1 is key inserted, recorded was key presented")
    file.write_text("\n".join(line for line in text.splitlines() if '"removed"' not in line))
    status, _, err = await bridge("replay", str(file), "--assert")
    assert (status, "2 events, 1 were recorded" in err) == (10, True)
    status, out, _ = await bridge("replay", str(file), "--json")
    assert (status, json.loads(out.splitlines()[-1])["ok"]) == (0, True)


async def test_a_recording_ends_by_itself_after_the_given_time(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    status, out, err = await bridge("record", "front", "-o", str(file), "--for", "0.3", "--socket", str(store.socket))
    assert (status, file.exists()) == (0, True), err
    assert out.startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("seconds", "why"), [("0", "is not in the range"), ("0.000001", "were over before the daemon answered")]
)
async def test_a_time_in_which_nothing_can_be_recorded_is_refused(
    seconds: str, why: str, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "front.jsonl"
    command = ("record", "front", "-o", str(file), "--for", seconds, "--socket", str(store.socket))
    status, _, err = await bridge(*command)
    assert (status, why in err, file.exists()) == (2, True, False), err


@pytest.mark.parametrize("room_bytes", [100, 800])
async def test_where_the_disk_is_full_whole_lines_are_kept(room_bytes: int, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"

    code = (  # a write over the limit is cut, the next one fails (setrlimit(2))
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room_bytes}, {room_bytes}));"
        "from optima_bridge.cli.app import main; sys.exit(main())"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "record", "front", "-o", str(file), "--socket", str(store.socket)),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT_S):
        ended = asyncio.create_task(process.communicate())
        while not ended.done():
            store.simulator.key_out()
            store.simulator.key_in(KEY)
            await asyncio.wait([ended], timeout=0.1)
    err = ended.result()[1].decode()
    assert (process.returncode, "error E-RECORDING" in err, "cannot be written: file too large" in err) == (
        9,
        True,
        True,
    )
    text = file.read_text()
    if room_bytes == 100:
        assert (text, "nothing is kept" in err) == ("", True)
        return
    *_, last = text.splitlines(keepends=True)
    assert (last[-1], isinstance(json.loads(last), dict)) == ("\n", True)
    pieces = len(text.splitlines()) - 1
    assert f"the {pieces} lines and " in err
    assert len(playback.read(file).pieces) == pieces


async def test_a_recording_that_the_daemon_ends_says_why(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "front.jsonl"
    running = asyncio.create_task(bridge("record", "front", "-o", str(file), "--socket", str(store.socket)))
    async with asyncio.timeout(LIMIT_S):
        await until(file.exists)
        await store.stop()
        status, _, err = await running
    assert (status, "the daemon is stopping" in err) == (8, True)
