"""Links: open byte pipes between a driver and its device. A driver gets an open one and never opens any itself."""

from optima_bridge.link.base import ByteLink, SerialFormat, open_link
from optima_bridge.link.memory import MemoryLink, MemoryPeer, memory_pair

__all__ = ["ByteLink", "MemoryLink", "MemoryPeer", "SerialFormat", "memory_pair", "open_link"]
