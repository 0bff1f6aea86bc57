"""HID report descriptors, and which usages are on in an input report. Sans-io.

    06 8f ff   Usage Page (ff8f)       a short item: tag and type in the upper six bits of the first byte, the size of its
    09 01      Usage (01)              data (0, 1, 2, 4 bytes, little-endian) in the lower two
    a1 01      Collection (Application)
    85 05        Report ID (5)         goes before each report of the device that has ids
    05 09        Usage Page (Button)
    19 01 29 04  Usage Minimum (1), Usage Maximum (4)
    75 01 95 04  Report Size (1 bit), Report Count (4)
    81 02        Input (Variable)      so buttons 1 … 4 are bits 0 … 3
    75 04 95 01 81 03                  Input (Constant): four bits of padding
    c0         End Collection

Global items (page, size, count, id) stay until they are changed, Push and Pop keep them; local ones (usages) are for the next
main item only. Source: USB Device Class Definition for HID 1.11, section 6.2.2. Limits as in Linux (hid.h).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from optima_bridge.errors import FrameError, FrameTooLong

MAX_DESCRIPTOR_BYTES = 4096
MAX_REPORT_BYTES = 16384
BUTTON_PAGE = 0x09

_INPUT, _OUTPUT, _FEATURE, _COLLECTION, _END_COLLECTION = 0x80, 0x90, 0xB0, 0xA0, 0xC0
_USAGE_PAGE, _LOGICAL_MINIMUM, _REPORT_SIZE, _REPORT_ID, _REPORT_COUNT = 0x04, 0x14, 0x74, 0x84, 0x94
_PUSH, _POP = 0xA4, 0xB4
_USAGE, _USAGE_MINIMUM, _USAGE_MAXIMUM = 0x08, 0x18, 0x28
_LONG_ITEM = 0xFE
_APPLICATION = 1  # a kind of collection
_CONSTANT, _VARIABLE = 1, 2  # bits of an Input item


class InputField(msgspec.Struct, frozen=True):
    """One Input item: `count` values of `size_bits` each, from `first_bit` of the report on, its id not counted.

    Attributes:
        application: page << 16 | usage of the application collection around it; 0 outside of any.
        is_array: a value tells which usage is on; else there is a value for each usage.
        logical_min: the value of an array that means its first usage.
        usages: first and last of each range of usages, page << 16 | usage.
    """

    application: int
    report_id: int
    first_bit: int
    size_bits: int
    count: int
    is_array: bool
    logical_min: int
    usages: tuple[tuple[int, int], ...]

    def on(self, body: bytes) -> Iterator[int]:
        """The usages that are on in a report without its id."""
        for index in range(self.count):
            value = self._value(body, self.first_bit + index * self.size_bits)
            place = value - self.logical_min if self.is_array else index if value else -1
            for first, last in self.usages if place >= 0 else ():
                if place <= last - first:
                    yield first + place
                    break
                place -= last - first + 1

    def has(self, usage: int) -> bool:
        """Whether this usage can be on."""
        return any(first <= usage <= last for first, last in self.usages)

    def _value(self, body: bytes, bit: int) -> int:
        covering = body[bit // 8 : (bit + self.size_bits + 7) // 8]
        value = int.from_bytes(covering, "little") >> bit % 8 & (1 << self.size_bits) - 1
        negative = self.logical_min < 0 and value >> self.size_bits - 1
        return value - (1 << self.size_bits) if negative else value


class InputReports(msgspec.Struct, frozen=True):
    """All input reports of a device.

    Attributes:
        has_ids: each report begins with a byte that tells which one it is.
        size_bits: of each report by its id, the id not counted; the only one of a device without ids has 0.
    """

    fields: tuple[InputField, ...]
    has_ids: bool
    size_bits: Mapping[int, int]

    def on(self, report: bytes, application: int) -> frozenset[int] | None:
        """The usages of an application that are on in a report; None where the report has no field of it.

        Raises:
            FrameError: it is shorter than its fields; kind ``length``.
        """
        report_id, body = (int.from_bytes(report[:1]), report[1:]) if self.has_ids else (0, report)
        fields = [field for field in self.fields if (field.application, field.report_id) == (application, report_id)]
        if not fields:
            return None
        if len(body) * 8 < self.size_bits[report_id]:
            raise FrameError(f"a report of {len(report)} bytes is shorter than its fields", kind="length")
        return frozenset(usage for field in fields for usage in field.on(body))


def parse(descriptor: bytes) -> InputReports:
    """The input reports that a report descriptor describes.

    Raises:
        FrameError: it does not hold together; kinds ``length``, ``nesting``, ``usage``, ``id``, ``overrun``.
    """
    if len(descriptor) > MAX_DESCRIPTOR_BYTES:
        raise FrameTooLong(f"a report descriptor of more than {MAX_DESCRIPTOR_BYTES} bytes")
    parser = _Parser()
    for item, data in _items(descriptor):
        parser.take(item, data)
    return parser.result()


def _items(descriptor: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and type of each short item, and its data; long items, of which none was ever defined, are passed over."""
    at = 0
    while at < len(descriptor):
        prefix = descriptor[at]
        if prefix == _LONG_ITEM:
            size, at = int.from_bytes(descriptor[at + 1 : at + 2]), at + 3
        else:
            size, at = (0, 1, 2, 4)[prefix & 3], at + 1
        if at + size > len(descriptor):
            raise FrameError("the report descriptor ends in the middle of an item", kind="length")
        if prefix != _LONG_ITEM:
            yield prefix & 0xFC, descriptor[at : at + size]
        at += size


class _Globals(msgspec.Struct, frozen=True):
    page: int = 0
    logical_min: int = 0
    size_bits: int = 0
    count: int = 0
    report_id: int = 0


_SETS = {_USAGE_PAGE: "page", _LOGICAL_MINIMUM: "logical_min", _REPORT_SIZE: "size_bits", _REPORT_COUNT: "count", _REPORT_ID: "report_id"}  # fmt: skip


class _Parser:
    def __init__(self) -> None:
        self._now = _Globals()
        self._pushed: list[_Globals] = []
        self._usages: list[tuple[int, int, bool]] = []  # item, usage, whether it brings its own page
        self._applications = [0]  # of each collection around the present place
        self._fields: list[InputField] = []
        self._size_bits: dict[int, int] = {}

    def take(self, item: int, data: bytes) -> None:
        value = int.from_bytes(data, "little", signed=item == _LOGICAL_MINIMUM)
        if name := _SETS.get(item):
            self._now = msgspec.structs.replace(self._now, **{name: value})
            if item == _REPORT_ID and not 0 < value < 256:
                raise FrameError(f"{value} is not a report id", kind="id")
        elif item == _PUSH:
            self._pushed.append(self._now)
        elif item == _POP:
            if not self._pushed:
                raise FrameError("Pop without Push", kind="nesting")
            self._now = self._pushed.pop()
        elif item in (_USAGE, _USAGE_MINIMUM, _USAGE_MAXIMUM):
            self._usages.append((item, value, len(data) == 4))
        elif item in (_INPUT, _OUTPUT, _FEATURE, _COLLECTION, _END_COLLECTION):
            self._main(item, value)
            self._usages.clear()

    def result(self) -> InputReports:
        if len(self._applications) > 1:
            raise FrameError("a collection without its end", kind="nesting")
        return InputReports(tuple(self._fields), any(self._size_bits), self._size_bits)

    def _main(self, item: int, value: int) -> None:
        if item == _INPUT:
            self._input(value)
        elif item == _COLLECTION:
            usages = self._ranges() if value == _APPLICATION else ()
            self._applications.append(usages[0][0] if usages else self._applications[-1])
        elif item == _END_COLLECTION:
            if len(self._applications) == 1:
                raise FrameError("the end of no collection", kind="nesting")
            self._applications.pop()

    def _input(self, flags: int) -> None:
        now = self._now
        first_bit = self._size_bits.get(now.report_id, 0)
        self._size_bits[now.report_id] = first_bit + now.size_bits * now.count
        if self._size_bits[now.report_id] > MAX_REPORT_BYTES * 8:
            raise FrameTooLong(f"an input report of more than {MAX_REPORT_BYTES} bytes")
        if flags & _CONSTANT or not now.size_bits:
            return
        self._fields.append(
            InputField(
                application=self._applications[-1],
                report_id=now.report_id,
                first_bit=first_bit,
                size_bits=now.size_bits,
                count=now.count,
                is_array=not flags & _VARIABLE,
                logical_min=now.logical_min,
                usages=self._ranges(),
            )
        )

    def _ranges(self) -> tuple[tuple[int, int], ...]:
        """The usages given since the last main item; the page that counts is the one in force now."""
        ranges: list[tuple[int, int]] = []
        minimum: int | None = None
        for item, value, is_whole in self._usages:
            usage = value if is_whole else self._now.page << 16 | value
            if item == _USAGE:
                ranges.append((usage, usage))
            elif item == _USAGE_MINIMUM:
                minimum = usage
            elif minimum is None or usage < minimum:
                raise FrameError("a range of usages that ends before it begins", kind="usage")
            else:
                ranges.append((minimum, usage))
                minimum = None
        return tuple(ranges)
