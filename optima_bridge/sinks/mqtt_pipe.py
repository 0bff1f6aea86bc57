"""The publish path beneath aiomqtt: many PUBLISH packets in one write, and the reason of every PUBACK.

aiomqtt keeps the connection (CONNECT, TLS, will, keep-alive, SUBSCRIBE, incoming messages). For our own publishes its way
costs one coroutine and three system calls per event and hides the PUBACK reason, without which a publish that the
broker's access list denied looks delivered. So this module

- hands paho, the client inside aiomqtt, a socket of ours (`AckTap`) that takes PUBACKs out of the incoming stream and
  passes everything else on, read in large pieces;
- puts ready-made PUBLISH packets into paho's output queue, so that order with paho's own packets is kept.

It stands on these internals, and `tests/broker/test_mqtt_pipe.py` notices when one of them changes: aiomqtt
``Client._client``, ``_connected``; paho ``Client._create_socket``, ``_sock_close``, ``_out_packet``, ``loop_write``,
``on_connect``, ``on_disconnect``, ``on_socket_register_write``, and aiomqtt's reading on while ``socket.pending() > 0``.

Packet formats: MQTT 5.0 §3.3 (PUBLISH), §3.4 (PUBACK); MQTT 3.1.1 §3.3, §3.4.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import aiomqtt
from paho.mqtt.client import Client as PahoClient
from paho.mqtt.enums import MQTTErrorCode

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
TLS_ALERT = 0x15  # RFC 8446 §5.1, content type
RETAIN = 0x01
QOS_1 = 0x02
DEFAULT_RECEIVE_MAXIMUM = 65535  # MQTT 5.0 §3.2.2.3.3: absent means this
DEFAULT_MAXIMUM_PACKET_BYTES = (1 << 28) + 4  # MQTT 5.0 §3.2.2.3.6: absent means what the length field can say
MAX_PACKET_BYTES = 1 << 20
# Packet identifiers are one space per connection. paho counts its own (SUBSCRIBE) from 1 up; ours start here.
FIRST_PACKET_ID = 0x0400
LAST_PACKET_ID = 0xFFFF

Acks = list[tuple[int, int]]


def encode_publish(topic: bytes, payload: bytes, packet_id: int, *, retain: bool, properties: bytes | None) -> bytes:
    """One PUBLISH packet; QoS 1, or QoS 0 where `packet_id` is 0.

    Args:
        properties: encoded properties without their length (MQTT 5), or None for MQTT 3.1.1.
    """
    header = PUBLISH | (RETAIN if retain else 0)
    identifier = b""
    if packet_id:
        header |= QOS_1
        identifier = packet_id.to_bytes(2, "big")
    head = b"%c" % len(properties) + properties if properties is not None else b""
    size_bytes = 2 + len(topic) + len(identifier) + len(head) + len(payload)
    return b"".join(
        (b"%c" % header, _varint(size_bytes), struct.pack(">H", len(topic)), topic, identifier, head, payload)
    )


def _varint(number: int) -> bytes:
    if number < 0x80:
        return b"%c" % number
    if number < 0x4000:
        return b"%c%c" % (number & 0x7F | 0x80, number >> 7)
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class AckSplitter:
    """Takes PUBACKs out of a stream of MQTT packets; sans-io.

    Raises from feed():
        ValueError: the stream is not MQTT, or a packet is longer than MAX_PACKET_BYTES.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[Acks, bytes]:
        """Returns (packet id, reason) of each complete PUBACK, and the bytes of all other complete packets."""
        buffer = self._buffer + data if self._buffer else data
        acks: Acks = []
        others: list[bytes] = []
        start, end = 0, len(buffer)
        while end - start >= 2:
            length, body = buffer[start + 1], start + 2
            if length & 0x80:
                length &= 0x7F
                shift = 7
                while True:
                    if body >= end:
                        body = -1
                        break
                    if shift > 21:
                        raise ValueError("a remaining length of more than four bytes")
                    byte = buffer[body]
                    body += 1
                    length |= (byte & 0x7F) << shift
                    if not byte & 0x80:
                        break
                    shift += 7
                if body < 0:
                    break
                if length > MAX_PACKET_BYTES:
                    raise ValueError(f"a packet of {length} bytes")
            stop = body + length
            if stop > end:
                break
            if buffer[start] & 0xF0 == PUBACK and length >= 2:
                acks.append((buffer[body] << 8 | buffer[body + 1], buffer[body + 2] if length > 2 else 0))
            else:
                others.append(buffer[start:stop])
            start = stop
        self._buffer = buffer[start:]
        return acks, b"".join(others)


class AckTap:
    """A socket as paho sees it, whose stream has no PUBACKs in it any more.

    Attributes:
        answered: whether the peer has said anything; only a CONNACK may come first (MQTT 5.0 §3.2, 3.1.1 §3.2).
    """

    def __init__(self, sock: Any, on_acks: Callable[[Acks], None], on_error: Callable[[OSError], None]) -> None:
        self._sock = sock
        self._on_acks = on_acks
        self._on_error = on_error
        self._splitter = AckSplitter()
        self._ready = b""
        self.answered = False

    def recv(self, size_bytes: int) -> bytes:
        if not self._ready:
            try:
                data = self._sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except OSError as error:
                self._on_error(error)
                raise
            if not data:
                return b""
            try:
                self._check_first(data)
                acks, self._ready = self._splitter.feed(data)
            except ValueError as error:
                problem = ConnectionAbortedError(f"it does not speak MQTT: {error}")
                self._on_error(problem)
                raise problem from error
            if acks:
                self._on_acks(acks)
            if not self._ready:
                raise BlockingIOError
        chunk, self._ready = self._ready[:size_bytes], self._ready[size_bytes:]
        return chunk

    def _check_first(self, data: bytes) -> None:
        if not self.answered:
            if data[0] != CONNACK:
                raise ValueError("this is TLS" if data[0] == TLS_ALERT else f"it begins with {data[0]:#04x}")
            self.answered = True

    def send(self, data: bytes) -> int:
        """Send what goes; a broken connection is for recv() to report, which may have the peer's reason before it."""
        try:
            sent: int = self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            raise BlockingIOError from error
        return sent

    def pending(self) -> int:
        """Bytes that wait above the file descriptor; aiomqtt reads on until there are none."""
        below = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._ready) + below

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class PublishPipe:
    """Publishes for one aiomqtt client, from the event loop's thread only.

    Args:
        client: not yet entered.
        sock: TCP or TLS connection to the broker; becomes the client's.
        on_acks: called with (packet id, reason) pairs in the order in which they came.
    """

    def __init__(self, client: aiomqtt.Client, sock: socket.socket, on_acks: Callable[[Acks], None]) -> None:
        self._aiomqtt = client
        self._paho: PahoClient = client._client  # noqa: SLF001 - see the module's docstring
        self._next_id = FIRST_PACKET_ID
        self.receive_maximum = DEFAULT_RECEIVE_MAXIMUM
        self.maximum_packet_bytes = DEFAULT_MAXIMUM_PACKET_BYTES
        self.session_present = False
        self.disconnect_reason = ""
        self.error: OSError | None = None
        self._tap = AckTap(sock, on_acks, self._failed)
        paho: Any = self._paho
        paho._create_socket = lambda: self._tap  # noqa: SLF001
        self._loop = asyncio.get_running_loop()
        paho.on_socket_register_write = lambda *_: self._loop.call_soon_threadsafe(self._want_write)
        on_connect: Any = self._paho.on_connect
        on_disconnect: Any = self._paho.on_disconnect

        def connected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            self.session_present = bool(flags.session_present)
            self.receive_maximum = getattr(properties, "ReceiveMaximum", DEFAULT_RECEIVE_MAXIMUM)
            self.maximum_packet_bytes = getattr(properties, "MaximumPacketSize", DEFAULT_MAXIMUM_PACKET_BYTES)
            on_connect(client, userdata, flags, reason, properties)

        def disconnected(client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if flags.is_disconnect_packet_from_server:
                self.disconnect_reason = str(reason)
            self._never_connects("the connection ended before the login was answered")
            on_disconnect(client, userdata, flags, reason, properties)

        self._paho.on_connect = connected
        self._paho.on_disconnect = disconnected

    @property
    def answered(self) -> bool:
        """Whether the broker has said anything at all."""
        return self._tap.answered

    def _want_write(self) -> None:
        """aiomqtt's own version registers the descriptor's number, which may be closed by now, or another file's."""
        if (descriptor := self._tap.fileno()) >= 0:
            self._loop.add_writer(descriptor, self._paho.loop_write)

    def _failed(self, error: OSError) -> None:
        self.error = error
        self._never_connects(str(error))

    def _never_connects(self, why: str) -> None:
        """Before the CONNACK aiomqtt does not listen to the end of a connection and would wait for its time-out."""
        waiting = self._aiomqtt._connected  # noqa: SLF001
        if not waiting.done():
            waiting.set_exception(aiomqtt.MqttError(why))
            waiting.exception()  # whoever waits gets it; a cancelled one must not leave a complaint behind

    def close(self) -> None:
        """End the connection where aiomqtt does not: after a failed login it keeps the socket and its timer."""
        self._paho._sock_close()  # noqa: SLF001
        self._tap.close()

    def take_id(self) -> int:
        """The next packet identifier; the caller never has more than a window of them in flight."""
        packet_id = self._next_id
        self._next_id = FIRST_PACKET_ID if packet_id == LAST_PACKET_ID else packet_id + 1
        return packet_id

    def write(self, packets: bytes) -> bool:
        """Send ready-made packets now, as far as the socket takes them, and the rest when it is writable.

        Returns False where the connection is gone; what was in flight counts as not delivered.
        """
        self._paho._out_packet.append(  # noqa: SLF001
            {
                "command": PUBLISH,
                "mid": 0,
                "qos": 1,  # paho reports QoS 0 packets as published itself; ours are none of its business
                "pos": 0,
                "to_process": len(packets),
                "packet": packets,
                "info": None,
            }
        )
        return self._paho.loop_write() == MQTTErrorCode.MQTT_ERR_SUCCESS

    @property
    def backlog(self) -> bool:
        """Whether the socket has not yet taken everything."""
        return bool(self._paho._out_packet)  # noqa: SLF001
