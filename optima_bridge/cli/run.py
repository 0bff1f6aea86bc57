"""``bridge run``: the daemon. The order of imports and steps is its start-up time."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from optima_bridge import log
from optima_bridge.cli.options import Settings
from optima_bridge.config import load
from optima_bridge.errors import TimedOut
from optima_bridge.journal import Journal, Limits
from optima_bridge.service import Serve, Service


@click.command()
@click.option("--config", "config_file", type=click.Path(), help="Main file; default /etc/optima-bridge/config.toml.")
@click.option("--log-format", type=click.Choice(["auto", "console", "json", "journal"]))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--once-ready", is_flag=True, help="End well as soon as every device is up: a smoke test (--timeout).")
@click.pass_obj
def run(
    settings: Settings, config_file: str | None, log_format: str | None, log_level: str | None, once_ready: bool
) -> None:
    """Run the daemon until SIGTERM.

    \b
      bridge run --config /etc/optima-bridge/config.toml
      bridge run --once-ready --timeout 30
    """
    overrides = {
        "log.level": log_level or ("debug" if settings.verbose else None),
        "log.format": log_format,
        "api.socket": settings.socket,
    }
    loaded = load(config_file, os.environ, overrides)
    config = loaded.config
    log.configure(config.log.level, config.log.format)
    for warning in loaded.warnings:
        log.get_logger(__name__).warning("config.warned", what=warning)
    limits = Limits(keep_s=config.journal.keep_days * 86400, keep_bytes=config.journal.keep_mb << 20)
    service = Service(config, Journal.open(config.journal.directory, limits), _load_api)
    asyncio.Runner().run(_until_ready(service, settings.timeout) if once_ready else service.run())
    # Everything is on disk. A library's thread may still hang in a name look-up, and interpreter exit would wait for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _load_api() -> Serve:
    from optima_bridge.api.server import serve

    return serve


async def _until_ready(service: Service, timeout_s: float) -> None:
    """Run until every device is up.

    Raises:
        TimedOut: some are not within `timeout_s` seconds; names them with their problems.
    """
    changed = asyncio.Event()
    service.listen(lambda _: changed.set())
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(timeout_s):
            await service.ready.wait()
            while _not_up(service):
                changed.clear()
                await changed.wait()
    except TimeoutError as error:
        raise TimedOut(f"after {timeout_s:g} s not up: {', '.join(_not_up(service)) or 'the control API'}") from error
    finally:
        service.stop()
        await running


def _not_up(service: Service) -> list[str]:
    return [
        f"{name} ({keeper.status.error.what})" if keeper.status.error else name
        for name, keeper in service.keepers.items()
        if keeper.status.link != "up"
    ]
