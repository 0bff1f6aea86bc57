"""A card reader of one's own: an MFRC522 module on a microcontroller that sends one line for each look at its field."""

from optima_driver_rc522_serial.driver import Rc522SerialDriver
from optima_driver_rc522_serial.simulator import Rc522SerialSimulator

__all__ = ["Rc522SerialDriver", "Rc522SerialSimulator"]
