"""The demo's credential: a CA for the simulated store, and enrolments asked for over the control socket, as `bridge enroll` does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

ASK_TIMEOUT_S = 10.0
ORDER = {"reader": "front-key", "controller": "controller", "replace": True, "wait_key_s": 30}


async def enroll(socket: Path, state_directory: Path) -> None:
    """Have the daemon begin an enrolment; what becomes of it, the events tell. The store's CA is made where there is none."""
    if not (state_directory / "ca").exists():
        await asyncio.to_thread(_make_ca, state_directory / "ca")
    body = json.dumps({"order": ORDER}).encode()
    head = f"POST /v1/enrollments HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    async with asyncio.timeout(ASK_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(head.encode() + body)
        await reader.read()
    writer.close()


def _make_ca(directory: Path) -> None:
    from datetime import UTC, datetime

    from optima_bridge.enroll.pki.ca import CertificateAuthority

    CertificateAuthority.create(directory, "Demo Retail", "demo-store", datetime.now(UTC))
