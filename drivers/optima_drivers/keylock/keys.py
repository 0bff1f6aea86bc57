"""Names of keys as they stand in the configuration: those of linux/input-event-codes.h without KEY_, and their codes.

Shift and Caps Lock are not among them: keyboards use the one or the other for capitals, so both are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

PASSED_OVER = frozenset({42, 54, 58})  # LEFTSHIFT, RIGHTSHIFT, CAPSLOCK
NOBODY_TYPES = frozenset(range(183, 195))  # F13 … F24


def _row(first: int, names: str) -> dict[str, int]:
    return {name: first + place for place, name in enumerate(names.split())}


KEYS: Mapping[str, int] = {
    **_row(1, "ESC 1 2 3 4 5 6 7 8 9 0 MINUS EQUAL BACKSPACE TAB"),
    **_row(16, "Q W E R T Y U I O P LEFTBRACE RIGHTBRACE ENTER LEFTCTRL A S D F G H J K L SEMICOLON APOSTROPHE GRAVE"),
    **_row(43, "BACKSLASH Z X C V B N M COMMA DOT SLASH"),
    **_row(55, "KPASTERISK LEFTALT SPACE"),
    **_row(59, "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NUMLOCK SCROLLLOCK"),
    **_row(71, "KP7 KP8 KP9 KPMINUS KP4 KP5 KP6 KPPLUS KP1 KP2 KP3 KP0 KPDOT"),
    **_row(86, "102ND F11 F12"),
    **_row(96, "KPENTER RIGHTCTRL KPSLASH SYSRQ RIGHTALT"),
    **_row(102, "HOME UP PAGEUP LEFT RIGHT END DOWN PAGEDOWN INSERT DELETE"),
    **_row(119, "PAUSE"),
    **_row(125, "LEFTMETA RIGHTMETA COMPOSE"),
    **_row(183, "F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24"),
}
