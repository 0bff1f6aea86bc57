"""OSDP: the control panel of an RS-485 line with readers on it."""

from optima_drivers.osdp.driver import OsdpDriver

__all__ = ["OsdpDriver"]
