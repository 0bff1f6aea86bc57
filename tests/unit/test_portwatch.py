"""Waiting for ports on a real file system."""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
from pathlib import Path

import pytest

from optima_bridge.link import uevents
from optima_bridge.link.portwatch import PortWatch, port_exists
from tests.uevent_sender import pretend_udev, send

LONG_S = 20.0


@pytest.fixture
def watch() -> PortWatch:
    return PortWatch()


async def test_a_port_that_is_there_is_not_waited_for(watch: PortWatch, tmp_path: Path) -> None:
    (tmp_path / "port").touch()
    assert await watch.wait_for(str(tmp_path / "port"), 0)
    watch.close()


async def test_a_port_that_never_comes_is_given_up(watch: PortWatch, tmp_path: Path) -> None:
    assert not await watch.wait_for(str(tmp_path / "port"), 0.01)
    watch.close()


async def test_a_port_is_seen_when_it_comes_as_a_node_a_link_or_by_a_rename(watch: PortWatch, tmp_path: Path) -> None:
    waiting = [waiter(watch, tmp_path / name) for name in ("node", "link", "moved")]
    await settled()
    (tmp_path / "node").touch()
    (tmp_path / "link").symlink_to(tmp_path / "node")
    (tmp_path / "else").touch()
    (tmp_path / "else").rename(tmp_path / "moved")
    assert await asyncio.gather(*waiting) == [True] * 3
    watch.close()


async def test_the_directories_above_may_come_and_go_as_udev_makes_them(watch: PortWatch, tmp_path: Path) -> None:
    directory = tmp_path / "serial" / "by-id"
    for _ in range(3):
        waiting = waiter(watch, directory / "port")
        await settled()
        directory.mkdir(parents=True)
        await settled()
        (directory / "port").touch()
        assert await waiting
        shutil.rmtree(tmp_path / "serial")
    watch.close()


async def test_a_directory_that_comes_with_the_port_in_it_is_enough(watch: PortWatch, tmp_path: Path) -> None:
    (tmp_path / "made" / "by-id").mkdir(parents=True)
    (tmp_path / "made" / "by-id" / "port").touch()
    waiting = waiter(watch, tmp_path / "serial" / "by-id" / "port")
    await settled()
    (tmp_path / "made").rename(tmp_path / "serial")
    assert await waiting
    watch.close()


async def test_one_port_wakes_nobody_who_waits_for_another(watch: PortWatch, tmp_path: Path) -> None:
    first, second = waiter(watch, tmp_path / "first"), waiter(watch, tmp_path / "second")
    await settled()
    (tmp_path / "first").touch()
    assert await first
    assert not second.done()
    (tmp_path / "second").touch()
    assert await second
    watch.close()


async def test_cancelled_waits_cost_nothing(watch: PortWatch, tmp_path: Path) -> None:
    waiting = waiter(watch, tmp_path / "port")
    await settled()
    before = descriptors()
    for _ in range(50):
        waiting.cancel()
        await asyncio.wait({waiting})
        waiting = waiter(watch, tmp_path / "port")
        await settled()
    assert descriptors() == before
    waiting.cancel()
    await asyncio.wait({waiting})
    watch.close()
    watch.close()
    assert descriptors() < before


async def test_a_number_that_inotify_gave_back_works_for_the_port_that_gets_it(tmp_path: Path) -> None:
    """The event loop must have forgotten it by then."""
    watch = PortWatch()
    waiting = waiter(watch, tmp_path / "port")
    await settled()
    (tmp_path / "port").touch()
    assert await waiting
    watch.close()
    ours, theirs = socket.socketpair()  # the lowest free numbers: those that inotify had
    with ours, theirs:
        theirs.send(b"x")
        ours.setblocking(False)
        async with asyncio.timeout(LONG_S):
            assert await asyncio.get_running_loop().sock_recv(ours, 1) == b"x"
            readable = asyncio.Event()
            asyncio.get_running_loop().add_reader(ours, readable.set)
            theirs.send(b"y")
            await readable.wait()
            asyncio.get_running_loop().remove_reader(ours)


async def test_without_a_descriptor_for_inotify_the_end_of_the_time_is_left(watch: PortWatch, tmp_path: Path) -> None:
    import asyncinotify  # noqa: F401 - importing opens files

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = waiter(watch, tmp_path / "port", 0.2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        await settled()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    (tmp_path / "port").touch()
    assert await waiting
    watch.close()


@pytest.mark.parametrize("port", ["usb:04fa:2490", "usb:04fa:2490@1-1.4", "pcsc:A READER", "pkcs11:token=t"])
async def test_a_port_that_is_no_path_is_tried_when_something_is_plugged_in(
    watch: PortWatch, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    pretend_udev(monkeypatch, runs=True)
    waiting = asyncio.create_task(watch.wait_for(port, LONG_S))
    await settled()
    send("remove")
    send("add", "tty")
    for _ in range(2):  # what was sent has been heard after the loop has looked
        await asyncio.sleep(0)
    assert not waiting.done()
    send("add")
    assert await waiting
    watch.close()


async def test_after_lost_messages_every_port_that_is_no_path_is_tried(
    watch: PortWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_udev(monkeypatch, runs=True)
    monkeypatch.setattr(uevents, "RECEIVE_BUFFER_BYTES", 4096)
    waiting = [asyncio.create_task(watch.wait_for(f"usb:04fa:{product}", LONG_S)) for product in ("2490", "2491")]
    await settled()
    for _ in range(100):
        send("change")
    assert await asyncio.gather(*waiting) == [True] * 2
    watch.close()


async def test_a_port_that_nothing_tells_of_is_left_to_the_end_of_the_time(
    watch: PortWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await watch.wait_for("memory:front", 0.01)
    assert not await watch.wait_for("usb:04fa:2490", 0.01)
    watch.close()
    monkeypatch.setattr(uevents, "NETLINK_KOBJECT_UEVENT", 31)  # no such protocol, as in a container
    assert not await watch.wait_for("usb:04fa:2490", 0.01)
    watch.close()


def test_a_port_that_is_no_path_is_not_known_to_be_there() -> None:
    assert not port_exists("usb:04fa:2490")


def test_a_port_behind_a_closed_or_strange_path_is_not_there(tmp_path: Path) -> None:
    assert not port_exists(str(tmp_path / "port"))
    assert not port_exists("/" + "x" * 5000)
    assert not port_exists("/dev/null/port")
    assert port_exists("/dev/null")


def waiter(watch: PortWatch, port: Path, timeout_s: float = LONG_S) -> asyncio.Task[bool]:
    return asyncio.create_task(watch.wait_for(str(port), timeout_s))


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
