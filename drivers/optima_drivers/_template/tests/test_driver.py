"""The driver keeps the contract: late, split, glued, lost and doubled bytes, noise, the plug pulled, a cancel at each await."""

from __future__ import annotations

from optima_bridge.model import Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_drivers._template import TemplateDriver, TemplateSimulator


class TestTemplate(DriverContract):
    case = ConformanceCase(
        driver=TemplateDriver,
        simulator=TemplateSimulator,
        provoke=lambda simulator: simulator.seal(is_open=True),
        undo=lambda simulator: simulator.seal(is_open=False),
        grants=(Subject.SEAL, "opened"),
        revokes=(Subject.SEAL, "closed"),
        noise=b"\x00\xff\x55\n",  # the next line begins behind a line feed
        registered=False,  # what is copied is no driver yet
    )
