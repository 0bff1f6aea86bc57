"""Logging: ``noun.past_verb`` events, facts as keys, device text cleaned, no secret at any level.

error: a person must act. warning: degraded, trying again. info: a state changed. debug: decisions.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from optima_bridge.text import printable

LogFormat = Literal["auto", "console", "json", "journal"]

EVENTS: Mapping[str, str] = {
    "api.closed": "the control socket is closed, the daemon is ending",
    "api.denied": "somebody asked for what their Unix groups do not allow; `uid` and `pid` say who",
    "api.failed": "the control socket cannot be served; events flow all the same",
    "api.opened": "the control socket takes clients",
    "audit.failed": "a record cannot be written to the audit log, or the log was changed; what has happened goes on",
    "audit.recovered": "nothing is wrong with the audit log any more",
    "command.rejected": "a request over MQTT was refused; `code` says why",
    "command.taken": "a request over MQTT was carried out",
    "config.warned": "something in the configuration is legal but unwise",
    "device.failed": "a bug in a driver; the device is opened again, the daemon goes on",
    "enroll.settled": "a job that a power cut or a lost link had left was settled; `active` says with which certificate",
    "enroll.unsettled": "a device that came up cannot be looked at; it is tried again when it comes up next",
    "enroll.waiting": "enrolments are not possible now; `why` says what is in the way, it is tried again",
    "job.changed": "an enrolment has begun, is in its next phase, has its result, or was settled later; `action` says which",
    "jobs.failed": "the list of jobs cannot be written; the jobs go on, for the device's own journal can",
    "journal.failed": "events cannot be written to disk; they are published all the same and kept in memory",
    "journal.recovered": "the journal writes again",
    "library.said": "a warning of a library that the daemon uses",
    "link.lost": "a device that worked is gone; what it last said is not known any more",
    "link.opened": "a device answers",
    "link.refused": "a device cannot be opened; it is tried again for ever",
    "loss.recorded": "events were given up undelivered; `first` and `last` say which",
    "mqtt.connected": "the broker accepted the session",
    "mqtt.denied": "the broker takes messages, but not on this topic",
    "mqtt.lost": "the session with the broker broke; events wait in the journal",
    "mqtt.refused": "there is no session with the broker, or it lacks a right; `why` says more",
    "mqtt.replayed": "a replay that somebody asked for has been sent",
    "reader.switched": "of two readers of one place another one is believed now; `readers` says which, by what it sees",
    "service.ready": "devices, MQTT and the control socket are being served",
    "service.started": "the daemon begins; `epoch` is the new one",
    "service.stopped": "the daemon has ended and everything is on disk",
}
"""Every event name of the project and what it means; docs/reference/logging.md shows it, tests compare the source."""

MAX_TEXT = 300
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # sd-daemon(3)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of a module; configured when it is first used."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(module=name.removeprefix("optima_bridge."))
    return logger


def clean(text: str) -> str:
    """`text` fit for one log line: control and other unprintable characters escaped, cut at MAX_TEXT characters."""
    text = printable(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _clean_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, bytes):
            event[key] = value[: MAX_TEXT // 3].hex(" ")
        elif isinstance(value, str):
            event[key] = clean(value)
    return event


def _journal_line(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
    """systemd's journal: the level as a prefix, no time (the journal has its own), no colour."""
    event.pop("level", None)
    trace = event.pop("exception", "")
    name = event.pop("event")
    facts = " ".join(f"{key}={_value(value)}" for key, value in event.items())
    lines = [f"{name} {facts}".rstrip(), *map(clean, trace.splitlines())]
    return "\n".join(f"<{_PRIORITIES.get(level, 6)}>{line}" for line in lines)


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


def _is_journal(out: TextIO) -> bool:
    """Whether `out` ends in systemd's journal (systemd.exec(5), JOURNAL_STREAM): children inherit the variable, not the stream."""
    try:
        status = os.fstat(out.fileno())
    except (OSError, ValueError):  # no descriptor at all: a test's stream
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def configure(level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None) -> None:
    """Set up logging for this process, to standard error.

    ``auto``: ``journal`` where systemd reads it, ``console`` on a terminal (coloured), else ``json``.
    """
    out = stream or sys.stderr
    if log_format == "auto":
        log_format = "journal" if _is_journal(out) else "console" if out.isatty() else "json"
    render: structlog.typing.Processor
    shared: list[structlog.typing.Processor] = [_clean_values, structlog.processors.add_log_level]
    if log_format == "json":
        shared += [structlog.processors.TimeStamper("iso", utc=True), structlog.processors.format_exc_info]
        render = structlog.processors.JSONRenderer(ensure_ascii=False)
    elif log_format == "journal":
        shared.append(structlog.processors.format_exc_info)
        render = _journal_line
    else:
        shared.append(structlog.processors.TimeStamper("%Y-%m-%dT%H:%M:%S.%fZ", utc=True))
        render = structlog.dev.ConsoleRenderer(
            colors=out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
            exception_formatter=structlog.dev.plain_traceback,  # the default one is coloured even in a file
        )
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Forward(level=logging.WARNING)]
