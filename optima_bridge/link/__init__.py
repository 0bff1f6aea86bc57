"""Links: what lies open between a driver and its device, mostly a byte pipe. A driver gets an open one and never opens any itself."""

from optima_bridge.link.base import ByteLink, Link, SerialFormat, open_byte_link, open_link
from optima_bridge.link.lines import Line, ModemLines, Sample
from optima_bridge.link.memory import MemoryLink, MemoryPeer, memory_pair
from optima_bridge.link.memory_records import MemoryRecordLink, RecordPeer, memory_records
from optima_bridge.link.records import InputLink, RecordLink, ReportLink

__all__ = [
    "ByteLink",
    "InputLink",
    "Line",
    "Link",
    "MemoryLink",
    "MemoryPeer",
    "MemoryRecordLink",
    "ModemLines",
    "RecordLink",
    "RecordPeer",
    "ReportLink",
    "Sample",
    "SerialFormat",
    "memory_pair",
    "memory_records",
    "open_byte_link",
    "open_link",
]
