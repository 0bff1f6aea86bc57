"""Watching a job of the daemon to its end; Ctrl-C asks the daemon to stop it, and a second one only ends the watching."""

from __future__ import annotations

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.screen import Record, Screen
from optima_bridge.errors import BridgeError, Interrupted


def follow(daemon: Daemon, job_id: str, screen: Screen, *, may_stop: bool) -> Record:
    """Show the job from its beginning; returns its result, which `Screen.end` shows.

    Args:
        may_stop: whether Ctrl-C stops the job; else it ends the watching.

    Raises:
        Interrupted: the watching was ended; the job goes on.
        DaemonUnavailable: the stream broke off; says how to watch again.
    """
    seen = 0
    while True:
        try:
            for record in daemon.stream(f"/v1/jobs/{job_id}/records?from={seen}"):
                seen = record.get("seq", seen)
                screen.take(record)
                if record["type"] == "result":
                    screen.leave_bar()
                    return record
            return _without_result(daemon, job_id)
        except KeyboardInterrupt:
            if not may_stop:
                raise Interrupted(
                    f"job {job_id} goes on without being watched", next_step=f"bridge jobs watch {job_id}"
                ) from None
            may_stop = False
            _stop(daemon, job_id, screen)


def _stop(daemon: Daemon, job_id: str, screen: Screen) -> None:
    try:
        daemon.post(f"/v1/jobs/{job_id}/cancel", {})
        screen.say("stopping; what was written is undone")
    except BridgeError as error:
        screen.say(f"{error.what}: it goes on to its end; Ctrl-C again only stops watching")


def _without_result(daemon: Daemon, job_id: str) -> Record:
    """The daemon has ended in the middle of the job, or its list of jobs could not be written."""
    job = daemon.get(f"/v1/jobs/{job_id}")["job"]
    if job["result"] is not None:
        result: Record = job["result"]
        return result
    from optima_bridge.cli.screen import refused
    from optima_bridge.errors import WriteUncertain

    return {**refused(WriteUncertain(f"job {job_id} is not settled", job=job_id)), "outcome": "needs attention"}
