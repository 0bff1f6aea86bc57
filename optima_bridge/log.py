"""Logging: ``noun.past_verb`` events, facts as keys, device text cleaned, no secret at any level.

error: a person must act. warning: degraded, trying again. info: a state changed. debug: decisions.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json", "journal"]

EVENTS = frozenset(
    {
        "api.closed",
        "api.denied",
        "api.failed",
        "api.opened",
        "audit.requested",
        "command.rejected",
        "command.taken",
        "config.warned",
        "device.failed",
        "device.identified",
        "journal.failed",
        "journal.opened",
        "journal.recovered",
        "library.said",
        "link.lost",
        "link.opened",
        "link.refused",
        "loss.recorded",
        "mqtt.connected",
        "mqtt.denied",
        "mqtt.lost",
        "mqtt.refused",
        "mqtt.replayed",
        "service.ready",
        "service.started",
        "service.stopped",
    }
)
"""Every event name of the project; tests/unit/test_log.py compares the source with it."""

MAX_TEXT = 300
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a module; configured when it is first used."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name.removeprefix("optima_bridge."))
    return logger


def clean(text: str) -> str:
    """`text` fit for one log line: control and other unprintable characters escaped, cut at MAX_TEXT characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _clean_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, bytes):
            event[key] = value[:MAX_TEXT // 3].hex(" ")
        elif isinstance(value, str):
            event[key] = clean(value)
    return event


def _journal_line(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
    """systemd's journal: the level as a prefix, no time (the journal has its own), no colour."""
    event.pop("level", None)
    name = event.pop("event")
    facts = " ".join(f"{key}={_value(value)}" for key, value in event.items())
    return f"<{_PRIORITIES.get(level, 6)}>{name} {facts}".rstrip()


def _value(value: object) -> str:
    text = str(value)
    return text if text and " " not in text and '"' not in text else '"' + text.replace('"', '\\"') + '"'


class _Forward(logging.Handler):
    """Warnings of libraries become lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(module=record.name)
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        (logger.error if record.levelno >= logging.ERROR else logger.warning)("library.said", text=text)


def configure(level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for this process, to standard error.

    ``auto``: ``journal`` under systemd, else ``console`` (coloured only on a terminal).
    """
    out = stream or sys.stderr
    if log_format == "auto":
        log_format = "journal" if os.environ.get("JOURNAL_STREAM") else "console"
    render: structlog.typing.Processor
    shared: list[structlog.typing.Processor] = [_clean_values, structlog.processors.add_log_level]
    if log_format == "json":
        shared.append(structlog.processors.TimeStamper("iso", utc=True))
        render = structlog.processors.JSONRenderer()
    elif log_format == "journal":
        render = _journal_line
    else:
        shared.append(structlog.processors.TimeStamper("%Y-%m-%dT%H:%M:%S.%fZ", utc=True))
        render = structlog.dev.ConsoleRenderer(colors=out.isatty() and not os.environ.get("NO_COLOR"))
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward(level=logging.WARNING)]


