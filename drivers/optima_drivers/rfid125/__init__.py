"""125 kHz card readers that only talk: RDM6300 repeats its frame while a card is held, ID-12LA sends it once."""

from optima_drivers.rfid125.driver import Id12laDriver, Rdm6300Driver

__all__ = ["Id12laDriver", "Rdm6300Driver"]
