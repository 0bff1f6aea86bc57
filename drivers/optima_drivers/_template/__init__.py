"""A seal switch on a microcontroller that says when it is opened and closed: as small as a driver can be."""

from optima_drivers._template.driver import TemplateDriver
from optima_drivers._template.simulator import TemplateSimulator

__all__ = ["TemplateDriver", "TemplateSimulator"]
