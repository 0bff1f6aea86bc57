"""A PKCS#11 token whose power can be cut at each call: SoftHSM2, faults at its function table, its files as its memory."""

from __future__ import annotations

import re
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import pytest

from optima_bridge.link.pkcs11 import Pkcs11Link, token_session
from optima_bridge.link.pkcs11_uri import parse
from optima_bridge.store import SecureStore
from optima_drivers.loopback.flash import PowerCut, When
from optima_drivers.pkcs11 import Pkcs11Driver
from optima_drivers.pkcs11.driver import Pkcs11Settings
from tests.softhsm import SoftHsm, give_back, memory_folder, why_not

if TYPE_CHECKING:
    from optima_bridge.link.cryptoki import TokenSession
    from tests.cryptoki_faults import Faults

LABEL = "optima-ctl-1"
SERIAL = b"till-3"
CKA_LABEL, CKA_VALUE = 0x03, 0x11
FIXED_BYTES = {1: 1, 2: 8}  # booleans and numbers; everything else says how long it is

T = TypeVar("T")


class OnePlug(Pkcs11Link):
    """The store PC is on the same plug: a power cut ends the engine where it stands."""

    faults: Faults

    async def call(self, step: Callable[[TokenSession], T]) -> T:
        try:
            return await super().call(step)
        finally:
            if self.faults.gone:
                raise PowerCut


class Pkcs11World:
    """The token is pulled out at a call; there is no half call. `link` says whether the PC notices by an error or dies too."""

    everyday_cuts = 4

    def __init__(self, link: type[Pkcs11Link]) -> None:
        if reason := why_not():
            pytest.skip(reason)
        from tests.cryptoki_faults import faults

        self._kind = link
        self._folder = memory_folder()
        weakref.finalize(self, self._folder.cleanup)
        self.hsm = SoftHsm(Path(self._folder.name) / "hsm")
        self.hsm.make(LABEL)
        self.faults = faults()
        self.faults.serial = SERIAL

    def power_up(self) -> SecureStore:
        give_back()
        self.faults.restart()
        uri = parse(self.hsm.uri(LABEL))
        link = self._kind(uri, token_session(uri))
        if isinstance(link, OnePlug):
            link.faults = self.faults
        settings = Pkcs11Settings.model_validate({"pin": {"file": str(self.hsm.pin_file)}})
        return Pkcs11Driver(link, settings).store

    def cut_at(self, operation: int, when: When, seed: int) -> None:
        self.faults.cut_at(operation, after=when is When.AFTER or (when is When.TORN and seed % 2 == 1))

    def watch(self, on_operation: Callable[[], None]) -> None:
        self.faults.on_operation = on_operation

    @property
    def operations(self) -> int:
        return self.faults.operations

    @property
    def writes(self) -> int:
        return self.faults.writes

    def credential(self) -> bytes | None:
        return active_in_files(self.hsm.tokens)[0]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(
            {str(file.relative_to(self.hsm.tokens)): file.read_bytes() for file in self._files()}
        )

    def restore(self, snapshot: bytes) -> None:
        give_back()
        for file in self._files():
            file.unlink()
        for name, content in msgspec.msgpack.decode(snapshot, type=dict[str, bytes]).items():
            (self.hsm.tokens / name).write_bytes(content)

    def _files(self) -> list[Path]:
        return sorted(file for file in self.hsm.tokens.rglob("*") if file.is_file())


def active_in_files(tokens: Path) -> tuple[bytes | None, int]:
    """What the terminal takes when it powers up, and how many certificates are ours, read from SoftHSM's own files."""
    found, ours = {}, 0
    for file in tokens.rglob("*.object"):
        try:
            attributes = object_file(file.read_bytes())
            label, value = attributes[CKA_LABEL].decode(), attributes[CKA_VALUE]
        except (KeyError, struct.error):
            continue  # torn, or something without bytes
        if named := re.fullmatch(r"optima:(staged|supervisor):(\d+)", label):
            ours += 1
            if value and named[1] == "supervisor":
                found[int(named[2])] = value
    return (found[max(found)] if found else None), ours


def object_file(content: bytes) -> dict[int, bytes]:
    """Attributes of an object as SoftHSM keeps it: a generation, then type, kind and value of each, 8 bytes, big-endian."""
    found, at = {}, 8
    while at < len(content):
        name, kind = struct.unpack_from(">QQ", content, at)
        at += 16
        if kind in FIXED_BYTES:
            size = FIXED_BYTES[kind]
        else:
            [size] = struct.unpack_from(">Q", content, at)
            at += 8
        found[name] = content[at : at + size]
        at += size
        if at > len(content):
            raise struct.error("cut off")  # SoftHSM takes no object that ends too early
    return found


PKCS11_WORLDS = {
    "PKCS#11 token, pulled out": lambda: Pkcs11World(Pkcs11Link),
    "PKCS#11 token, host and token on one plug": lambda: Pkcs11World(OnePlug),
}
