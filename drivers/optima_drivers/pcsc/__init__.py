"""Cards on PC/SC readers: any card by its UID, PIV cards with their secure memory."""

from optima_drivers.pcsc.driver import PcscDriver
from optima_drivers.pcsc.piv import PivDriver

__all__ = ["PcscDriver", "PivDriver"]
