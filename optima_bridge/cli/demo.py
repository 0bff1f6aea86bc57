"""`bridge demo`: the main job on a simulated store, with nothing plugged in and nothing left behind."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(1, 86400), default=12, show_default=True, help="How long the story is."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed tells the same story.")
@click.option(
    "--broker", default="auto", show_default=True, metavar="WHICH", help="auto, embedded, none, mqtt://HOST:PORT"
)
@click.option("--plain", is_flag=True, help="No colour; one event in two plain lines.")
@click.option("--json", "as_json", is_flag=True, help="NDJSON, ending in a result record.")
@click.option("--keep", is_flag=True, help="Leave the temporary directory (configuration, journal, log) in place.")
@click.pass_context
def demo(ctx: click.Context, seconds: float, seed: int, broker: str, plain: bool, as_json: bool, keep: bool) -> None:
    """Run the real daemon on a simulated store and show each event as it is published.

    \b
    bridge demo                      key, card, keylock, seal and controller, 12 seconds
    bridge demo --seconds 600        time to look around from another terminal
    bridge demo --broker none        without MQTT
    """
    from optima_bridge.demo.show import Screen

    as_json = as_json or bool(
        (ctx.obj or {}).get("json") if isinstance(ctx.obj, dict) else getattr(ctx.obj, "json", False)
    )
    screen = Screen("json" if as_json else "plain" if plain or not sys.stdout.isatty() else "rich")
    screen.title("optima-bridge demo – simulated store, nothing on this PC is touched")
    import asyncio

    from optima_bridge.demo.run import Options, run

    ctx.exit(asyncio.run(run(Options(seconds, seed, broker, keep), screen)))
