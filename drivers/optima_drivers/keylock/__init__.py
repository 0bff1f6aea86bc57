"""Keylocks: typed sequences of POS keyboards, HID reports, serial text."""

from optima_drivers.keylock.hid import HidKeylockDriver
from optima_drivers.keylock.serial import SerialKeylockDriver
from optima_drivers.keylock.typed import TypedKeylockDriver

__all__ = ["HidKeylockDriver", "SerialKeylockDriver", "TypedKeylockDriver"]
