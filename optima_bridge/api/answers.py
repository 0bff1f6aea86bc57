"""What goes back over HTTP: JSON documents, errors among them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from aiohttp import web

from optima_bridge.errors import (
    AccessDenied,
    AuditBroken,
    AuditError,
    BridgeError,
    Busy,
    CertificateError,
    ControllerBusy,
    EnrollBusy,
    EnrollRefused,
    NotFound,
    SinkError,
    UsageError,
)

HTTP_STATUSES: tuple[tuple[type[BridgeError], int], ...] = (
    (NotFound, 404),
    (UsageError, 400),
    (AccessDenied, 403),
    (AuditBroken, 409),
    (AuditError, 503),
    (Busy, 503),
    (EnrollBusy, 409),
    (ControllerBusy, 409),
    (EnrollRefused, 409),
    (CertificateError, 422),
    (SinkError, 503),
)


def answer(document: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`document` as a JSON response."""
    body = msgspec.json.encode(document, enc_hook=str) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def refusal(error: BridgeError, status: int = 0, headers: Mapping[str, str] | None = None) -> web.Response:
    """`error` as a JSON response; `status` 0: the one that fits its class."""
    fitting = next((number for kind, number in HTTP_STATUSES if isinstance(error, kind)), 500)
    return answer(error.document(), status or fitting, headers)
