"""iButton keys on a DS2490 USB adapter (DS9490R, DS9490B)."""

from optima_drivers.ds2490.driver import Ds2490Driver

__all__ = ["Ds2490Driver"]
