"""iButton keys on a DS2480B serial adapter (DS9097U and its clones)."""

from optima_drivers.ds2480b.driver import Ds2480bDriver

__all__ = ["Ds2480bDriver"]
