"""Who did what: an append-only file in which each record holds the hash of the one before it."""

from optima_bridge.audit.actor import Actor
from optima_bridge.audit.audit import Audit
from optima_bridge.audit.log import AuditLog
from optima_bridge.audit.record import Head

__all__ = ["Actor", "Audit", "AuditLog", "Head"]
