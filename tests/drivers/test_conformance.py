"""Every shipped driver keeps the driver contract, and so does the template that others copy."""

from __future__ import annotations

from optima_bridge.model import Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_drivers._template import TemplateDriver, TemplateSimulator
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.simulator import LoopbackSimulator

ROM = "01B7BA1000000075"


class TestLoopback(DriverContract):
    case = ConformanceCase(
        driver=LoopbackDriver,
        simulator=LoopbackSimulator,
        provoke=lambda simulator: simulator.key_in(ROM),
        undo=lambda simulator: simulator.key_out(),
        grants=(Subject.KEY, "inserted"),
    )


class TestTemplate(DriverContract):
    case = ConformanceCase(
        driver=TemplateDriver,
        simulator=TemplateSimulator,
        provoke=lambda simulator: simulator.seal(is_open=True),
        undo=lambda simulator: simulator.seal(is_open=False),
        grants=(Subject.SEAL, "opened"),
        noise=b"\x00\xff\x55\n",
        registered=False,
    )
