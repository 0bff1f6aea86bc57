"""MCU controllers that speak Zephyr MCUmgr/SMP over a serial line: a secure store for certificates."""

from optima_drivers.smp.driver import SmpDriver

__all__ = ["SmpDriver"]
