"""TLS and client certificates against a real mosquitto: whatever is wrong is named, and no event is lost meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from optima_bridge.errors import BrokerUnavailable
from optima_bridge.sinks import mqtt as sink_module
from optima_bridge.sinks.dial import dial
from optima_bridge.sinks.tls import TlsFiles, read_certificate, tls_context
from tests.broker.pki import DAY, Authority
from tests.nodes import Node, running
from tests.support import Mosquitto, free_port, subscribed, until

pytestmark = pytest.mark.broker


class Store(msgspec.Struct):
    """A broker with TLS, a plain second port for referees, and what the daemon is configured with."""

    broker: Mosquitto
    authority: Authority
    plain_port: int
    directory: Path

    def start(self, server: tuple[Path, Path] | None = None, more: str = "") -> None:
        certificate, key = server or self.authority.issue("server", host="127.0.0.1")
        self.broker.start(
            f"cafile {self.authority.ca}\ncertfile {certificate}\nkeyfile {key}\n{more}\n"
            f"allow_anonymous true\nlistener {self.plain_port} 127.0.0.1\n"
        )

    def tls(self, client: tuple[Path, Path] | None = None, ca: Path | None = None) -> str:
        own = f'cert = "{client[0]}"\nkey = "{client[1]}"\n' if client else ""
        return f'[mqtt.tls]\nca = "{ca or self.authority.ca}"\n{own}'


@pytest.fixture
def store(mosquitto: Mosquitto, tmp_path: Path) -> Store:
    return Store(mosquitto, Authority(tmp_path / "pki"), free_port(), tmp_path / "node")


def what(node: Node) -> str:
    assert node.service.mqtt is not None
    problem = node.service.mqtt.status()["problem"]
    return str(problem["what"]) if isinstance(problem, dict) else ""


def connected(node: Node) -> bool:
    assert node.service.mqtt is not None
    return node.service.mqtt.connected


CLIENT = "require_certificate true"


async def test_a_server_that_the_authority_signed_is_accepted(store: Store) -> None:
    store.start()
    async with running(store.directory, store.broker.port, store.tls()) as node:
        await until(lambda: connected(node))


async def test_a_client_certificate_is_shown_and_written_to_the_log(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store.authority.issue("pc1")
    store.start(more=CLIENT)
    async with running(store.directory, store.broker.port, store.tls(client)) as node:
        await until(lambda: connected(node))
    known = x509.load_pem_x509_certificate(client[0].read_bytes())
    assert f"valid until {known.not_valid_after_utc:%Y-%m-%d %H:%M}Z" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "expiry", "dialled", "words"),
    [
        ("127.0.0.1", -DAY, "127.0.0.1", "certificate has expired"),
        ("127.0.0.9", DAY, "127.0.0.1", "IP address mismatch"),
        ("broker.example", DAY, "localhost", "Hostname mismatch"),
    ],
)
async def test_a_server_certificate_that_does_not_fit_is_named(
    store: Store, host: str, expiry: timedelta, dialled: str, words: str
) -> None:
    store.start(store.authority.issue("server", host=host, until=expiry))
    async with running(store.directory, store.broker.port, f'host = "{dialled}"\n{store.tls()}') as node:
        await until(lambda: words in what(node))
        assert f"the certificate of {dialled}:{store.broker.port} is not accepted" in what(node)


async def test_a_server_of_another_authority_is_named(store: Store, tmp_path: Path) -> None:
    store.start()
    other = Authority(tmp_path / "other")
    async with running(store.directory, store.broker.port, store.tls(ca=other.ca)) as node:
        await until(lambda: "is not accepted" in what(node))


def _none(store: Store) -> tuple[str, str]:
    return CLIENT, store.tls()


def _revoked(store: Store) -> tuple[str, str]:
    client = store.authority.issue("pc1")
    return f"{CLIENT}\ncrlfile {store.authority.revoke(client[0])}", store.tls(client)


def _expired(store: Store) -> tuple[str, str]:
    return CLIENT, store.tls(store.authority.issue("pc1", until=-DAY))


def _unknown(store: Store) -> tuple[str, str]:
    return CLIENT, store.tls(Authority(store.directory.parent / "other").issue("pc1"))


REFUSALS = [
    (_none, "wants a certificate of ours"),
    (_revoked, "refuses our certificate: it is revoked (serial "),
    (_expired, "refuses our certificate: it has expired (serial "),
    (_unknown, "refuses our certificate: the broker does not know the authority that signed it (serial "),
]


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize(("make", "words"), REFUSALS, ids=[make.__name__.strip("_") for make, _ in REFUSALS])
async def test_a_refused_client_certificate_is_named_by_the_reason_and_not_by_a_time_out(
    store: Store, make: Callable[[Store], tuple[str, str]], words: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "CONNECT_TIMEOUT_S", 3600.0)
    settings, tls = make(store)
    store.start(more=f"{settings}\ntls_version {version}")
    async with running(store.directory, store.broker.port, tls) as node:
        await until(lambda: words in what(node))


async def test_events_wait_for_the_right_certificate_and_arrive_once(store: Store) -> None:
    store.start(more=CLIENT)
    async with running(store.directory, store.broker.port, store.tls()) as node:
        await until(lambda: "wants a certificate" in what(node))
        for number in range(5):
            node.key(number)
    client = store.authority.issue("pc1")
    async with subscribed(store.plain_port) as seen:
        await asyncio.sleep(0.3)
        async with running(store.directory, store.broker.port, store.tls(client)) as node:
            await until(lambda: connected(node))
            node.key(5)
            await seen.until(lambda: any(p["data"]["n"] == 5 for p in seen.payloads("evt/front/key")))
    assert [payload["data"]["n"] for payload in seen.payloads("evt/front/key")] == list(range(6))


async def test_plain_mqtt_to_a_tls_port_is_named(store: Store) -> None:
    store.start()
    async with running(store.directory, store.broker.port) as node:
        await until(lambda: "this is TLS" in what(node) or "hung up instead of answering" in what(node))


async def test_tls_to_a_plain_port_is_named(store: Store) -> None:
    store.start()
    async with running(store.directory, store.plain_port, store.tls()) as node:
        await until(lambda: "does not speak TLS" in what(node))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
async def test_a_key_that_may_not_be_read_is_named(store: Store) -> None:
    certificate, key = store.authority.issue("pc1")
    key.chmod(0)
    with pytest.raises(BrokerUnavailable, match=f"{key} cannot be read: Permission denied"):
        tls_context(TlsFiles(str(store.authority.ca), str(certificate), str(key)))


async def test_a_key_that_went_away_is_named_and_the_daemon_goes_on(store: Store) -> None:
    store.start(more=CLIENT)
    certificate, key = store.authority.issue("pc1")
    aside = key.rename(key.with_suffix(".aside"))
    async with running(store.directory, store.broker.port, store.tls((certificate, key))) as node:
        await until(lambda: f"{key} cannot be read: No such file" in what(node))
        aside.rename(key)
        await until(lambda: connected(node))


def test_files_that_cannot_be_used_are_named(store: Store, tmp_path: Path) -> None:
    certificate, _ = store.authority.issue("pc1")
    _, other_key = store.authority.issue("pc2")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no PEM here")
    with pytest.raises(BrokerUnavailable, match="cannot be used: KEY_VALUES_MISMATCH"):
        tls_context(TlsFiles(str(store.authority.ca), str(certificate), str(other_key)))
    with pytest.raises(BrokerUnavailable, match=r"garbage\.pem cannot be used"):
        tls_context(TlsFiles(str(garbage)))


def test_serial_and_end_of_validity_are_those_that_another_reader_finds(store: Store) -> None:
    for expiry in (DAY, 40 * 365 * DAY):  # UTCTime until 2049, GeneralizedTime from then on
        certificate, key = store.authority.issue("pc1", until=expiry)
        known = x509.load_pem_x509_certificate(certificate.read_bytes())
        ours = read_certificate(key.read_text() + certificate.read_text())
        assert int(ours.serial, 16) == known.serial_number
        assert ours.not_after == known.not_valid_after_utc > datetime.now(UTC)


async def test_a_handshake_that_is_never_answered_is_named_and_does_not_hold_up_the_stop(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with running(store.directory, port, store.tls()) as node:
            accepted, _ = await asyncio.to_thread(silent.accept)
            node.service.stop()
            async with asyncio.timeout(sink_module.CONNECT_TIMEOUT_S - 1):
                await node.task
        accepted.close()
        context, _ = tls_context(TlsFiles(str(store.authority.ca)))
        with pytest.raises(TimeoutError):
            await dial("127.0.0.1", port, context, 0.2)


async def test_sigterm_ends_the_program_though_a_handshake_hangs(store: Store, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = tmp_path / "config.toml"
        file.write_text(
            f'[store]\nsite = "s1"\nnode = "pc1"\n[mqtt]\nport = {silent.getsockname()[1]}\n{store.tls()}'
            f'[journal]\ndirectory = "{tmp_path}/state"\n[api]\nenabled = false\n'
        )
        file.chmod(stat.S_IRUSR | stat.S_IWUSR)
        bridge = Path(sys.executable).with_name("bridge")
        process = await asyncio.create_subprocess_exec(bridge, "run", "--config", file)
        accepted, _ = await asyncio.to_thread(silent.accept)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(sink_module.CONNECT_TIMEOUT_S - 1):
            assert await process.wait() == 0
        accepted.close()
