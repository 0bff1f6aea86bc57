from optima_bridge.testing import ConformanceCase, StoreContract
from optima_drivers.smp import SmpDriver
from optima_drivers.smp.simulator import SmpSimulator


class TestSmp(StoreContract):
    case = ConformanceCase(driver=SmpDriver, simulator=SmpSimulator)
