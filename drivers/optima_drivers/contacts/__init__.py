"""Switches on modem lines, and the seal of a scale: contacts that are supervised, event counters that remember."""

from optima_drivers.contacts.driver import ContactsDriver
from optima_drivers.contacts.seal import SealDriver

__all__ = ["ContactsDriver", "SealDriver"]
