"""The configuration that is shipped for others' programs works in these programs."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from optima_bridge.demo.broker import free_port

CONFIG = Path(__file__).parents[2] / "config"
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
USERS = ("s1042-pc1", "dashboard", "loss-prevention")
START_TIMEOUT_S = 10.0


@pytest.mark.broker
@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_the_recommended_broker_settings_start_and_their_access_list_holds(tmp_path: Path) -> None:
    assert MOSQUITTO
    port = free_port()
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    for user in USERS:
        new = () if passwords.exists() else ("-c",)
        subprocess.run(["mosquitto_passwd", *new, "-b", str(passwords), user, "secret"], check=True)
    shutil.copy(CONFIG / "acl-example.conf", acl)
    for path in (passwords, acl):
        path.chmod(0o600)
    text = (CONFIG / "mosquitto-recommended.conf").read_text(encoding="ascii")
    text = text.replace("listener 1883 127.0.0.1", f"listener {port} 127.0.0.1\nuser {getpass.getuser()}")
    text = text.replace("/etc/mosquitto/optima-passwords", str(passwords))
    text = text.replace("/etc/mosquitto/optima-acl.conf", str(acl))
    (tmp_path / "mosquitto.conf").write_text(text, encoding="ascii")
    with subprocess.Popen([MOSQUITTO, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.PIPE) as broker:
        try:
            assert _wait_until_up(broker, port), broker.stderr.read() if broker.stderr else ""
            event = "optima/v1/s1042/pc1/evt/front/key"
            request = "optima/v1/s1042/pc1/cmd/bridge/ping"
            assert _may_publish(port, "s1042-pc1", event)
            assert not _may_publish(port, "dashboard", event)
            assert not _may_publish(port, "s1042-pc1", "optima/v1/s1042/pc2/evt/front/key")
            assert _may_publish(port, "loss-prevention", request)
            assert not _may_publish(port, "dashboard", request)
        finally:
            broker.terminate()


def _wait_until_up(broker: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while broker.poll() is None and time.monotonic() < deadline:
        if _publish(port, "s1042-pc1", "optima/v1/s1042/pc1/evt/x/x").returncode == 0:
            return True
    return False


def _may_publish(port: int, user: str, topic: str) -> bool:
    done = _publish(port, user, topic)
    assert done.returncode == 0, done.stderr  # the login is right; a denied publish is a warning
    return "Not authorized" not in done.stderr


def _publish(port: int, user: str, topic: str) -> subprocess.CompletedProcess[str]:
    words = ["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-u", user, "-P", "secret"]
    return subprocess.run([*words, "-q", "1", "-t", topic, "-m", "{}"], capture_output=True, text=True, timeout=10)
