"""Links: what lies open between a driver and its device, mostly a byte pipe. A driver gets an open one and never opens any itself."""

from optima_bridge.link.base import ByteLink, Link, SerialFormat, open_byte_link, open_link
from optima_bridge.link.memory import MemoryLink, MemoryPeer, memory_pair

__all__ = ["ByteLink", "Link", "MemoryLink", "MemoryPeer", "SerialFormat", "memory_pair", "open_byte_link", "open_link"]
