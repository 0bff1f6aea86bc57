"""A simulated card in the reader of vsmartcard's vpcd: ``python -m optima_drivers.pcsc.vpcd CARD.json [--port 35963]``.

    00 01 00             power off          two bytes of length, then what it is about; the card connects to the reader
    00 01 01             power on
    00 01 02             reset
    00 01 04             your ATR?          -> length, ATR
    00 05 00 a4 04 00 00 a command          -> length, answer

Connecting puts the card in, closing takes it out. Without TCP_QUICKACK each command costs 44 ms, for vpcd sends length and
command apart and waits for the first to be acknowledged. Source: vsmartcard, virtualsmartcard/src/vpcd/vpcd.h.
"""

from __future__ import annotations

import argparse
import socket
from contextlib import suppress
from pathlib import Path

from optima_bridge.link.memory_card import Card
from optima_drivers.pcsc.management import Algorithm
from optima_drivers.pcsc.virtual_card import VirtualPivCard
from optima_drivers.pcsc.virtual_files import Writes

PORT = 35963
OFF, ON, RESET, ATR = 0x00, 0x01, 0x02, 0x04


def serve(connection: socket.socket, card: Card) -> None:
    """Be the card until the reader, or the card's power, is gone."""
    with connection, suppress(OSError):
        while message := _message(connection):
            if message == bytes([ATR]):
                answer = card.atr
            elif len(message) == 1:
                card.reset()
                continue
            elif not (answer := card.exchange(message)):
                return
            connection.sendall(len(answer).to_bytes(2) + answer)


def _message(connection: socket.socket) -> bytes:
    """The next message; empty: the reader is gone."""
    size = int.from_bytes(_exactly(connection, 2))
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # the kernel takes it back by itself
        part = connection.recv(size_bytes - len(data))
        if not part:
            return b""
        data += part
    return data


def main() -> None:
    """Put one card in."""
    parser = argparse.ArgumentParser(description="a virtual PIV card in the reader of vpcd")
    parser.add_argument("card", type=Path, help="file that keeps its memory; made where it does not exist")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, help="of the reader")
    parser.add_argument("--writes", type=Writes, choices=list(Writes), default=Writes.ATOMIC)
    parser.add_argument("--algorithm", type=Algorithm, choices=list(Algorithm), default=Algorithm.TDES)
    asked = parser.parse_args()
    key = bytes(range(1, 9)) * 4
    card = VirtualPivCard(
        asked.card,
        writes=asked.writes,
        algorithm=asked.algorithm,
        management_key=key[: asked.algorithm.key_bytes],
    )
    serve(socket.create_connection((asked.host, asked.port)), card)


if __name__ == "__main__":
    main()
