"""PUBLISH packets by class of topic: QoS 1, retain, expiry and content type as docs/reference/mqtt.md lists them."""

from __future__ import annotations

import struct

from optima_bridge.model import Subject
from optima_bridge.sinks.mqtt_pipe import encode_publish

DAY_S = 86400
EVENT_EXPIRY_S = 7 * DAY_S  # expiry only bounds the queues of brokers; the journal has its own time
DIAGNOSIS_EXPIRY_S = 30 * DAY_S
REPLY_EXPIRY_S = 120
DIAGNOSES = {Subject.FAULT.value, Subject.LOSS.value}


def _properties(content_type: str, expiry_s: int | None = None) -> bytes:
    """Message expiry interval and content type (MQTT 5.0 §3.3.2.3.3, §3.3.2.3.9), without the length before them."""
    content = content_type.encode()
    expiry = b"" if expiry_s is None else struct.pack(">BI", 0x02, expiry_s)
    return expiry + struct.pack(">BH", 0x03, len(content)) + content


class Encoding:
    """Makes the packets of one sink; `mqtt5` False: without properties."""

    def __init__(self, *, mqtt5: bool) -> None:
        events = "application/cloudevents+json"
        self._event = _properties(events, EVENT_EXPIRY_S) if mqtt5 else None
        self._diagnosis = _properties(events, DIAGNOSIS_EXPIRY_S) if mqtt5 else None
        self._reply = _properties("application/json", REPLY_EXPIRY_S) if mqtt5 else None
        self._retained = _properties("application/json") if mqtt5 else None
        self._topics: dict[str, tuple[bytes, bytes | None]] = {}  # of events: few, and used for ever

    def event(self, topic: str, payload: bytes, packet_id: int) -> bytes:
        """A thing that happened."""
        known = self._topics.get(topic)
        if known is None:
            diagnosis = topic.rpartition("/")[2] in DIAGNOSES
            known = self._topics[topic] = topic.encode(), self._diagnosis if diagnosis else self._event
        return encode_publish(known[0], payload, packet_id, retain=False, properties=known[1])

    def retained(self, topic: str, payload: bytes, packet_id: int) -> bytes:
        """What is true; an empty payload clears it."""
        return encode_publish(topic.encode(), payload, packet_id, retain=True, properties=self._retained)

    def reply(self, topic: str, payload: bytes, packet_id: int) -> bytes:
        """The answer to a request."""
        return encode_publish(topic.encode(), payload, packet_id, retain=False, properties=self._reply)
