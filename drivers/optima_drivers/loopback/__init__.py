"""The loopback device: every event ability without hardware, for tests, the tutorial and the demo."""

from optima_drivers.loopback.driver import LoopbackDriver

__all__ = ["LoopbackDriver"]
