"""The conformance suite: what every driver must do, proved with its own simulator. Needs pytest.

A driver author states a case and inherits the tests:

    class TestMyDriver(DriverContract):
        case = ConformanceCase(
            driver=MyDriver,
            simulator=MySimulator,
            provoke=lambda simulator: simulator.key_in("01B7BA1000000075"),
            undo=lambda simulator: simulator.key_out(),
            grants=(Subject.KEY, "inserted"),
        )

A driver on a link that is no byte pipe inherits `LinkContract`, one with a secure store and no events `StoreContract`; its
case has a `join`.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("awaits", "bench", "contract")))  # show the values

from optima_bridge.testing.bench import ConformanceCase  # noqa: E402 - only what is imported after it is rewritten
from optima_bridge.testing.contract import DriverContract, LinkContract, StoreContract  # noqa: E402

__all__ = ["ConformanceCase", "DriverContract", "LinkContract", "StoreContract"]
