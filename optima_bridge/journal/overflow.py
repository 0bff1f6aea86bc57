"""Which records go first when the disk takes nothing and the memory bound is reached."""

from __future__ import annotations

from optima_bridge.model import Record, Subject

TELEMETRY = frozenset({Subject.HEALTH.value, Subject.LINK.value, Subject.STATUS.value})


def is_telemetry(record: Record) -> bool:
    """Whether the next one of its kind says as much: told by the last level of the topic."""
    return record.topic.rpartition("/")[2] in TELEMETRY


def shed(records: list[Record], keep: int) -> tuple[list[Record], list[Record]]:
    """Split `records` into at most `keep` that stay, in order, and those that go: telemetry first, then the oldest."""
    surplus = len(records) - keep
    if surplus <= 0:
        return records, []
    gone = [record for record in records if is_telemetry(record)][:surplus]
    if len(gone) < surplus:
        gone += [record for record in records if not is_telemetry(record)][: surplus - len(gone)]
    positions = {record.position for record in gone}
    return [record for record in records if record.position not in positions], gone
