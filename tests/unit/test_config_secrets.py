"""Secrets stand in files of their own, are read when needed, and appear nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optima_bridge.config import Secret, load
from optima_bridge.errors import ConfigError
from optima_bridge.secrets import MAX_SIZE_BYTES

SITE = '[store]\nsite = "s1042"\n'
HOW_TO = 'write { file = "/path" } or { credential = "name" }'


def config_with(tmp_path: Path, password: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(f"{SITE}[mqtt]\npassword = {password}\n")
    return file


def secret_in(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_a_secret_is_the_content_of_its_file_without_the_line_end(tmp_path: Path, content: bytes, mode: int) -> None:
    file = secret_in(tmp_path, content, mode)

    secret = load(config_with(tmp_path, f'{{ file = "{file}" }}'), {}).config.mqtt.password

    assert secret is not None
    assert secret.read() == b"hunter2"


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = secret_in(tmp_path, b"old")
    secret = Secret(file=str(file))
    assert secret.read() == b"old"

    file.write_bytes(b"new")
    assert secret.read() == b"new"


def test_a_credential_is_a_file_in_the_directory_that_systemd_names(tmp_path: Path) -> None:
    secret_in(tmp_path, b"hunter2\n", 0o440)  # systemd guards it by an access list, which looks like group read

    assert Secret(credential="secret").read({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == b"hunter2"


def test_a_credential_that_was_not_handed_over_says_what_to_add_to_the_unit(tmp_path: Path) -> None:
    secret = Secret(credential="mqtt-password")

    with pytest.raises(ConfigError, match="not handed over") as caught:
        secret.read({})
    assert "LoadCredential=mqtt-password:" in caught.value.next_step
    with pytest.raises(ConfigError, match="no such file"):
        secret.read({"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_file_that_others_can_read_is_refused_at_load_and_at_every_read(tmp_path: Path, mode: int) -> None:
    file = secret_in(tmp_path, b"hunter2")
    secret = Secret(file=str(file))
    file.chmod(mode)

    with pytest.raises(ConfigError, match=f"can be read by group or others; run: chmod 600 {file}") as caught:
        load(config_with(tmp_path, f'{{ file = "{file}" }}'), {})
    assert ":4:12: mqtt.password: " in str(caught.value)
    with pytest.raises(ConfigError, match="can be read by group or others"):
        secret.read()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"\n", "is empty"), (b"x" * (MAX_SIZE_BYTES + 1), "is larger than")]
)
def test_a_file_without_a_usable_secret_is_refused_when_it_is_read(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Secret(file=str(secret_in(tmp_path, content))).read()


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    secret = Secret(file=str(secret_in(tmp_path, b"x")))
    pipe.unlink()
    os.mkfifo(pipe, 0o600)

    with pytest.raises(ConfigError, match="is not a file"):
        secret.read()
    with pytest.raises(ConfigError, match="is not a file"):
        load(config_with(tmp_path, f'{{ file = "{tmp_path}" }}'), {})


@pytest.mark.parametrize(
    ("password", "what"),
    [
        ('"hunter2"', f"mqtt.password: a secret must not stand in the configuration, which many can read; {HOW_TO}"),
        ("1234", f"mqtt.password: a secret must not stand in the configuration, which many can read; {HOW_TO}"),
        ("{}", f"mqtt.password: needs exactly one of file and credential; {HOW_TO}"),
        ('{ file = "/x", credential = "x" }', f"mqtt.password: needs exactly one of file and credential; {HOW_TO}"),
        ('{ file = "hunter2" }', "mqtt.password.file: must be text of the form /"),
        ('{ credential = "../hunter2" }', "mqtt.password.credential: must be text of the form "),
        ('{ value = "hunter2" }', "mqtt.password.value: unknown key"),
        ('{ file = "/nowhere" }', "mqtt.password: /nowhere cannot be read: no such file or directory"),
    ],
)
def test_what_is_no_reference_is_refused_and_never_repeated(tmp_path: Path, password: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config_with(tmp_path, password), {})

    assert what in str(caught.value)
    assert (
        "hunter2" not in f"{caught.value} {caught.value.document()} {caught.value.__cause__} {caught.value.__context__}"
    )


def test_a_secret_in_the_environment_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SITE)

    with pytest.raises(ConfigError, match="a secret must not stand") as caught:
        load(tmp_path / "config.toml", {"OPTIMA_BRIDGE__MQTT__PASSWORD": "hunter2"})
    assert str(caught.value).startswith("env OPTIMA_BRIDGE__MQTT__PASSWORD: mqtt.password: a secret")
    assert "hunter2" not in str(caught.value)


def test_a_drop_in_replaces_a_reference_as_a_whole(tmp_path: Path) -> None:
    file = config_with(tmp_path, '{ file = "/nowhere" }')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1.toml").write_text('[mqtt.password]\ncredential = "mqtt-password"\n')

    loaded = load(file, {})

    assert loaded.values["mqtt.password"] == {"credential": "mqtt-password"}
    assert str(loaded.origins["mqtt.password"]) == f"{tmp_path}/conf.d/1.toml:1:7"


def test_a_secret_does_not_show_itself(tmp_path: Path) -> None:
    secret = Secret(file=str(secret_in(tmp_path, b"hunter2")))

    assert repr(secret) == str(secret) == "Secret(***)"
