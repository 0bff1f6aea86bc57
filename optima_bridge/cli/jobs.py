"""``bridge jobs``: what was asked of the daemon, how far it is, how it ended."""

from __future__ import annotations

from typing import Any

import click

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.follow import follow
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import flat, table
from optima_bridge.cli.screen import Screen

SHOWN = 20


@click.group()
def jobs() -> None:
    """List, watch and stop enrolments.

    \b
      bridge jobs list
      bridge jobs watch 7f3a
      bridge jobs cancel 7f3a
    """


@jobs.command(name="list")
@click.option("--all", "all_", is_flag=True, help="The last hundred, not only the newest and what is not done.")
@click.pass_obj
def list_(settings: Settings, all_: bool) -> None:
    """The newest jobs first."""
    document = Daemon(settings).get("/v1/jobs")
    shown = [job for n, job in enumerate(document["jobs"]) if all_ or n < SHOWN or job["state"] != "done"]
    if settings.json:
        settings.print_json({**document, "jobs": shown})
        return
    rows = [
        [job["id"], job["begun"], job["device"], job["order"]["kind"], _state(job), job["by"]["user"]] for job in shown
    ]
    table(settings, ("JOB", "BEGUN", "DEVICE", "KIND", "STATE", "BY"), rows)


def _state(job: dict[str, Any]) -> str:
    if job["state"] == "running":
        share = f" {100 * job['done_bytes'] // job['size_bytes']} %" if job["size_bytes"] else ""
        return f"{job['phase'] or 'waiting'}{share}"
    if job["result"] is None:
        return "waits for the device"
    error = job["result"]["error"]
    return str(job["result"]["outcome"]) + (f" ({error['code']})" if error else "")


@jobs.command()
@click.argument("job")
@click.pass_obj
def show(settings: Settings, job: str) -> None:
    """Everything about one job."""
    document = Daemon(settings).get(f"/v1/jobs/{job}")
    if settings.json:
        settings.print_json(document)
    else:
        table(settings, ("FACT", "VALUE"), flat(document["job"]))


@jobs.command()
@click.argument("job")
@click.pass_context
def watch(ctx: click.Context, job: str) -> None:
    """Show a job from its beginning to its end. The exit status is the job's; Ctrl-C ends only the watching."""
    settings = ctx.ensure_object(Settings)
    settings.stream = True
    daemon = Daemon(settings)
    found = daemon.get(f"/v1/jobs/{job}")["job"]
    screen = Screen(settings)
    ctx.exit(screen.end(follow(daemon, found["id"], screen, may_stop=False)))


@jobs.command()
@click.argument("job")
@click.pass_obj
def cancel(settings: Settings, job: str) -> None:
    """Stop a job that is not switching yet; what it wrote is undone."""
    document = Daemon(settings).post(f"/v1/jobs/{job}/cancel", {})
    if settings.json:
        settings.print_json(document)
    elif not settings.quiet:
        click.echo(
            f"job {document['job']['id']} is stopping; see how it ends: bridge jobs watch {document['job']['id']}"
        )
