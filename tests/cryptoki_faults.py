"""Faults between python-pkcs11 and a real module: its own function table, with some of the calls going through here first.

The module stays what it is. What can be had: the token pulled out before or after any call, its power cut at the n-th call
that matters, other flags and another serial number in what it says of itself, a return code in place of an answer, a call
that takes its time. Return codes and the table: PKCS#11 v2.40, section 3 and pkcs11f.h.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.softhsm import MODULE

CKR_OK, CKR_DEVICE_REMOVED, CKR_PIN_LOCKED, CKR_TOKEN_WRITE_PROTECTED = 0x00, 0x32, 0xA4, 0xE2
CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_TOKEN_NOT_PRESENT = 0x30, 0x31, 0xE0
WRITE_PROTECTED, PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED = 0x2, 0x10000, 0x20000, 0x40000

# Place in CK_FUNCTION_LIST and number of arguments.
CALLS = {
    "C_GetSlotList": (4, 3),
    "C_GetTokenInfo": (6, 2),
    "C_OpenSession": (12, 5),
    "C_CloseSession": (13, 1),
    "C_Login": (18, 4),
    "C_Logout": (19, 1),
    "C_CreateObject": (20, 4),
    "C_DestroyObject": (22, 2),
    "C_GetAttributeValue": (24, 4),
    "C_SetAttributeValue": (25, 4),
    "C_FindObjectsInit": (26, 3),
    "C_FindObjects": (27, 4),
    "C_FindObjectsFinal": (28, 1),
    "C_SignInit": (42, 3),
    "C_Sign": (43, 5),
    "C_GenerateKeyPair": (59, 8),
}
WRITES = {"C_CreateObject", "C_DestroyObject", "C_SetAttributeValue", "C_GenerateKeyPair"}
OPERATIONS = {*WRITES, "C_OpenSession", "C_Login", "C_FindObjectsInit"}
SERIAL_AT, SERIAL_BYTES, FLAGS_AT = 80, 16, 96  # in CK_TOKEN_INFO


class Faults:
    """What is wrong with the module, nothing at first; all attributes may be set while it is in use.

    Attributes:
        refuse: return codes in place of calls, by name.
        gone: the return code of every call; 0: the token is there.
        serial: what the token says in place of its serial number; empty: its own.
        flags: added to those of the token.
        held: a call that waits for `go`; `waiting` is set when it does.
        calls: how often each was made.
        operations: how many of OPERATIONS since `cut_at`; writes: how many of WRITES in all.
        on_operation: called before each.
    """

    def __init__(self) -> None:
        self._cut: tuple[int, bool] | None = None
        self.waiting, self.go = threading.Event(), threading.Event()
        self._kept = [self._install(name, *place) for name, place in CALLS.items()]
        self.heal()

    def heal(self) -> None:
        """Nothing is wrong any more, and nothing was counted yet."""
        self.refuse: dict[str, int] = {}
        self.gone = self.flags = self.operations = self.writes = 0
        self.calls: Counter[str] = Counter()
        self.serial = b""
        self.held = ""
        self.on_operation: Callable[[], None] = lambda: None
        self._cut = None
        self.waiting.clear()
        self.go.clear()

    def cut_at(self, operation: int, after: bool) -> None:
        """Pull the token at that operation from now, 1 is the next one, before or after it takes effect."""
        self.operations = 0
        self._cut = (operation, after)

    def restart(self) -> None:
        """Put it in again."""
        self.gone = 0
        self._cut = None

    def _install(self, name: str, index: int, arguments: int) -> object:
        original = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * arguments)(_table()[index])

        def call(*given: Any) -> int:
            return self._call(name, original, given)

        ours = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * arguments)(call)
        _table()[index] = ctypes.cast(ours, ctypes.c_void_p).value
        return ours, original

    def _call(self, name: str, original: Callable[..., int], given: tuple[Any, ...]) -> int:
        self.calls[name] += 1
        if self.gone:
            return CKR_OK if name == "C_FindObjectsFinal" else self.gone
        if name in self.refuse:
            return self.refuse[name]
        if name == self.held:
            self.waiting.set()
            self.go.wait()
        if name in OPERATIONS:
            self.on_operation()
            self.operations += 1
            self.writes += name in WRITES
            if self._cut is not None and self.operations == self._cut[0]:
                self.gone = CKR_DEVICE_REMOVED
                if self._cut[1]:
                    original(*given)
                return self.gone
        answer = original(*given)
        if name == "C_GetTokenInfo" and answer == CKR_OK:
            self._rewrite(given[1])
        return answer

    def _rewrite(self, info: int) -> None:
        if self.serial:
            ctypes.memmove(info + SERIAL_AT, self.serial.ljust(SERIAL_BYTES), SERIAL_BYTES)
        flags = ctypes.c_ulong.from_address(info + FLAGS_AT)
        flags.value |= self.flags


def _table() -> Any:
    """The functions of CK_FUNCTION_LIST; a version, two bytes and their padding, stands before them."""
    table = ctypes.c_void_p()
    assert ctypes.CDLL(MODULE).C_GetFunctionList(ctypes.byref(table)) == CKR_OK
    assert table.value is not None
    return ctypes.cast(table.value + ctypes.sizeof(ctypes.c_void_p), ctypes.POINTER(ctypes.c_void_p))


_faults: list[Faults] = []


def faults() -> Faults:
    """The ones of this process, healed."""
    if not _faults:
        _faults.append(Faults())
    _faults[0].heal()
    return _faults[0]
