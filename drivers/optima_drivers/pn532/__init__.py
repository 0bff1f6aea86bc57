"""ISO 14443A cards on a PN532 module at a serial port (HSU)."""

from optima_drivers.pn532.driver import Pn532Driver

__all__ = ["Pn532Driver"]
