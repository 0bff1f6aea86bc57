"""The listening socket: right owner from the first moment, no leftovers, no theft from a daemon that lives."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from optima_bridge.api.sockets import listening, passed_socket
from optima_bridge.errors import ApiError

GROUP = grp.getgrgid(os.getegid()).gr_name


def test_the_socket_is_for_owner_and_group_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "run/optima-bridge/api.sock"
    with listening(path, GROUP):
        found = path.stat()
        assert (stat.filemode(found.st_mode), found.st_gid) == ("srw-rw----", os.getegid())
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_the_socket_belongs_to_the_view_group(tmp_path: Path) -> None:
    with listening(tmp_path / "api.sock", "daemon"):
        assert (tmp_path / "api.sock").stat().st_gid == grp.getgrnam("daemon").gr_gid


def test_a_group_that_does_not_exist_leaves_the_socket_to_our_own(tmp_path: Path) -> None:
    with listening(tmp_path / "api.sock", "no-such-group"):
        assert (tmp_path / "api.sock").stat().st_gid == os.getegid()


def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path, GROUP), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_living_daemon_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with listening(path, GROUP):
        with pytest.raises(ApiError, match="another daemon serves") as caught, listening(path, GROUP):
            pass
        assert str(path) in caught.value.next_step
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_living_daemon_too_busy_to_accept_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))
        with pytest.raises(ApiError, match="another daemon serves"), listening(path, GROUP):
            pass


def test_a_file_of_that_name_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(ApiError, match="is not a socket"), listening(path, GROUP):
        pass
    assert path.read_text() == "precious"


def test_a_successor_keeps_its_socket_when_we_end(tmp_path: Path) -> None:
    path, other = tmp_path / "api.sock", tmp_path / "successor.sock"
    with listening(path, GROUP), listening(other, GROUP) as successor:
        other.rename(path)
        inode = path.stat().st_ino
        assert successor.fileno() >= 0
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("name", ["x" * 200, "file/api.sock"])
def test_a_path_that_cannot_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ApiError, match="cannot listen on"), listening(tmp_path / name, GROUP):
        pass


def test_sockets_passed_to_another_process_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert passed_socket() is None
