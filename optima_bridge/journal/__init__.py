"""What must not be lost: every record in an SQLite file, committed while it is being published; a sink is a cursor."""

from optima_bridge.journal.journal import Journal
from optima_bridge.journal.words import BEGINNING, JournalStats, Limits, Loss, Position

__all__ = ["BEGINNING", "Journal", "JournalStats", "Limits", "Loss", "Position"]
