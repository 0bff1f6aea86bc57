"""Virtual time for tests: see `optima_bridge.virtual_time`."""

from optima_bridge.virtual_time import VirtualTimeLoop, run, virtual_loop

__all__ = ["VirtualTimeLoop", "run", "virtual_loop"]
