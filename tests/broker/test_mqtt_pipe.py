"""The publish path beneath aiomqtt against a real broker; this file notices when aiomqtt or paho change under it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.sinks.dial import dial
from optima_bridge.sinks.mqtt_pipe import Acks, AckSplitter, PublishPipe, encode_publish
from tests.support import Mosquitto

PUBACK_OK = bytes.fromhex("40 02 04 00")
PUBACK_DENIED = bytes.fromhex("40 04 04 01 87 00")
SUBACK = bytes.fromhex("90 04 00 01 00 01")
LONG_PUBLISH = b"\x30" + b"\xac\x02" + b"\x00\x01t" + b"x" * 297


def test_publish_is_encoded_as_the_standard_says() -> None:
    # MQTT 5.0 §3.3: fixed header, remaining length, topic, packet identifier, properties, payload
    assert (
        encode_publish(b"a/b", b"hi", 0x0400, retain=True, properties=b"").hex(" ")
        == "33 0a 00 03 61 2f 62 04 00 00 68 69"
    )
    assert (
        encode_publish(b"a/b", b"hi", 0x0400, retain=False, properties=None).hex(" ")
        == "32 09 00 03 61 2f 62 04 00 68 69"
    )
    assert encode_publish(b"t", b"", 0, retain=False, properties=None).hex(" ") == "30 03 00 01 74"
    assert encode_publish(b"t", b"x" * 297, 0, retain=False, properties=None) == LONG_PUBLISH
    assert encode_publish(b"t", b"x" * 20000, 0, retain=False, properties=None)[:4].hex(" ") == "30 a3 9c 01"


@given(
    st.lists(st.sampled_from([PUBACK_OK, PUBACK_DENIED, SUBACK, LONG_PUBLISH]), max_size=8),
    st.lists(st.integers(1, 40), max_size=40),
)
def test_pubacks_are_taken_out_however_the_stream_is_cut(packets: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(packets)
    splitter = AckSplitter()
    acks: Acks = []
    others = b""
    for size in [*cuts, len(stream)]:
        found, rest = splitter.feed(stream[:size])
        acks += found
        others += rest
        stream = stream[size:]
    assert acks == [(0x400, 0) if packet == PUBACK_OK else (0x401, 0x87) for packet in packets if packet[0] == 0x40]
    assert others == b"".join(packet for packet in packets if packet[0] != 0x40)


@pytest.mark.parametrize("stream", ["30 ff ff ff ff 01", "30 ff ff ff 7f"])
def test_a_stream_that_is_not_mqtt_is_refused(stream: str) -> None:
    with pytest.raises(ValueError, match=r"packet|length"):
        AckSplitter().feed(bytes.fromhex(stream))


class Session:
    """One connection with everything that came over it."""

    def __init__(self) -> None:
        self.acks: Acks = []
        self.came = asyncio.Event()

    def take(self, acks: Acks) -> None:
        self.acks += acks
        self.came.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.acks) < count:
                self.came.clear()
                await self.came.wait()


@pytest.mark.broker
async def test_publishes_are_acknowledged_in_order_while_aiomqtt_does_its_own_work(mosquitto: Mosquitto) -> None:
    mosquitto.start()
    session = Session()
    client = aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5)
    pipe = PublishPipe(client, await dial("127.0.0.1", mosquitto.port, None, 5), session.take)
    async with client:
        assert pipe.receive_maximum == 20  # what mosquitto's CONNACK says by default
        await client.subscribe("t/#", qos=1)
        ids = []
        for number in range(100):
            ids.append(pipe.take_id())
            assert pipe.write(encode_publish(b"t/x", b"%d" % number, ids[-1], retain=False, properties=b""))
            await session.until(number + 1)
        assert session.acks == [(packet_id, 0) for packet_id in ids]
        received = []
        async with asyncio.timeout(10):
            async for message in client.messages:
                received.append(message.payload)
                if len(received) == 100:
                    break
    assert received == [b"%d" % number for number in range(100)]


@pytest.mark.broker
async def test_a_denied_publish_shows_its_reason(mosquitto: Mosquitto, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite good/#\n")
    mosquitto.start(f"allow_anonymous true\nacl_file {acl}\n")
    session = Session()
    client = aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5)
    pipe = PublishPipe(client, await dial("127.0.0.1", mosquitto.port, None, 5), session.take)
    async with client:
        pipe.write(encode_publish(b"bad/x", b"no", 0x500, retain=False, properties=b""))
        pipe.write(encode_publish(b"good/x", b"yes", 0x501, retain=False, properties=b""))
        await session.until(2)
    reasons = dict(session.acks)
    assert reasons[0x500] == 0x87  # Not authorized; aiomqtt's own publish() returns normally here
    assert reasons[0x501] < 0x80


@pytest.mark.broker
async def test_a_closed_pipe_leaves_no_descriptor_behind(mosquitto: Mosquitto) -> None:
    mosquitto.start("allow_anonymous false\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        client = aiomqtt.Client("127.0.0.1", mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5)
        pipe = PublishPipe(client, await dial("127.0.0.1", mosquitto.port, None, 5), lambda _: None)
        with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori[sz]ed"):
            await client.__aenter__()
        pipe.close()
        await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
