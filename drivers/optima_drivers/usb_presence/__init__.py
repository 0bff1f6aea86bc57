"""USB dongles: being plugged in is the key."""

from optima_drivers.usb_presence.driver import UsbPresenceDriver

__all__ = ["UsbPresenceDriver"]
