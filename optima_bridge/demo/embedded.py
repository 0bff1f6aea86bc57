"""The embedded broker as a program of its own: ``python -m optima_bridge.demo.embedded PORT`` (amqtt, MQTT 3.1.1)."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys


async def main(port: int) -> None:
    """Serve on loopback until SIGTERM."""
    from amqtt.broker import Broker

    logging.disable(logging.CRITICAL)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
