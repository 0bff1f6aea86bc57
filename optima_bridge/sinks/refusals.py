"""What the refusals of a broker mean, in words a person can act upon."""

from __future__ import annotations

import errno
import socket
import ssl

from aiomqtt.exceptions import MqttConnectError

from optima_bridge.errors import BrokerRefused, BrokerUnavailable, SinkError
from optima_bridge.sinks.broker import BrokerSettings
from optima_bridge.sinks.mqtt_pipe import PublishPipe
from optima_bridge.sinks.tls import OwnCertificate

# Alerts by which a TLS peer refuses a certificate (RFC 8446 §6.2), as OpenSSL names them, without TLSV1_ALERT_ and the like.
CERTIFICATE_ALERTS = {
    "CERTIFICATE_REVOKED": "it is revoked",
    "CERTIFICATE_EXPIRED": "it has expired",
    "UNKNOWN_CA": "the broker does not know the authority that signed it",
    "BAD_CERTIFICATE": "the broker finds it bad",
    "UNSUPPORTED_CERTIFICATE": "it is not meant for clients",
    "CERTIFICATE_UNKNOWN": "the broker does not say why",
    "ACCESS_DENIED": "it is valid, and not allowed in",
    "DECRYPT_ERROR": "the signature made with our key does not fit it",
}
NO_CERTIFICATE_ALERTS = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
# PUBACK reasons (MQTT 5.0 §3.4.2.1) and the packet size, which we check ourselves.
PUBLISH_REASONS = {
    0x80: "unspecified error",
    0x83: "the broker's own reason",
    0x87: "not authorized",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x95: "larger than the broker takes",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
}
TOO_LARGE = 0x95


def denied(topic: str, reason: int, settings: BrokerSettings) -> SinkError:
    """The broker takes our session and not this publish. `reason`: of the PUBACK, or TOO_LARGE."""
    words = PUBLISH_REASONS.get(reason, f"reason {reason:#04x}")
    if reason == TOO_LARGE:
        cause, next_step = (
            "a low limit on packets",
            "raise max_packet_size or message_size_limit of the broker to 65536",
        )
    else:
        cause = "the broker's access list"
        next_step = f"give user {settings.who!r} write access to {topic} in the broker's access list"
    return BrokerRefused(
        f"the broker denies {topic}: {words}", cause=cause, next_step=next_step, topic=topic, reason=reason
    )


def no_echo(topic: str, settings: BrokerSettings) -> SinkError:
    """MQTT 3.1.1 has no denials; the missing echo of our own birth is the only sign of one."""
    return BrokerRefused(
        f"{settings.where} took the birth but did not deliver it on {topic}",
        cause=f"its access list lets user {settings.who!r} not write our topics, or not read this one",
        next_step=f'allow writing to our topics and reading of {topic}; or set protocol = "5", which names what is denied',
    )


def cut_short(error: SinkError, settings: BrokerSettings) -> SinkError:
    """What it means that sessions end again and again."""
    return BrokerRefused(
        f"sessions at {settings.where} end again and again: {error.what}",
        cause=f"a second program connects with the client id {settings.client_id!r}",
        next_step="stop the second daemon, or give this one its own [store] node",
    )


def explain(
    error: Exception,
    settings: BrokerSettings,
    pipe: PublishPipe | None = None,
    certificate: OwnCertificate | None = None,
) -> SinkError:
    """What `error` means, with the likely cause and the next step.

    Args:
        pipe: of the session, if it came that far; knows more than `error`.
        certificate: the one that we showed.
    """
    where = settings.where
    if pipe is not None and pipe.error is not None:
        error = pipe.error
    if pipe is not None and pipe.disconnect_reason:
        if "taken over" in pipe.disconnect_reason.lower():
            return BrokerRefused(
                f"the session at {where} was taken over",
                cause=f"a second program connects with the client id {settings.client_id!r}",
                next_step="stop the second daemon, or give this one its own [store] node",
            )
        return BrokerUnavailable(f"{where} ended the session: {pipe.disconnect_reason}")
    if isinstance(error, MqttConnectError):
        return _login(str(error), settings)
    if isinstance(error, ssl.SSLError):
        return _tls(error, settings, certificate)
    text = str(error)
    if isinstance(error, socket.gaierror):
        return BrokerUnavailable(f"the name {settings.host} does not resolve", cause="a typing mistake, or no DNS now")
    if isinstance(error, ConnectionAbortedError):
        return BrokerRefused(
            f"the answer of {where} is not understood: {error}",
            cause="the port expects TLS, or belongs to another program",
            next_step="check [mqtt] port and, for TLS, that there is a table [mqtt.tls]",
        )
    if pipe is not None and not pipe.answered and "timed out" in text.lower():
        other = ', or one that knows MQTT 3.1.1 only; then set protocol = "3.1.1" in [mqtt]' if settings.mqtt5 else ""
        return BrokerUnavailable(
            f"{where} accepts the connection and does not answer the login", cause=f"a broker that hangs{other}"
        )
    if isinstance(error, TimeoutError) or "timed out" in text.lower():
        return BrokerUnavailable(
            f"{where} does not answer", cause="a firewall, a wrong address, or a broker that hangs"
        )
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return BrokerUnavailable(f"nothing listens on {where}", cause="the broker is stopped, or listens elsewhere")
    if pipe is not None and not pipe.answered:
        return BrokerUnavailable(
            f"{where} hung up instead of answering the login",
            cause="the port expects TLS, or is not an MQTT broker's"
            if settings.tls is None
            else "the broker's settings",
            next_step="check [mqtt] port and, for TLS, that there is a table [mqtt.tls]; then look into the broker's log",
        )
    return BrokerUnavailable(f"the connection to {where} broke: {text or type(error).__name__}")


def _login(text: str, settings: BrokerSettings) -> SinkError:
    reason = text.removeprefix("[code:").split("]", 1)[-1].strip() or text
    if "protocol version" in reason.lower():
        other = "3.1.1" if settings.mqtt5 else "5"
        return BrokerRefused(
            f"{settings.where} does not speak MQTT {'5' if settings.mqtt5 else '3.1.1'}",
            cause="an older broker, or one with this version switched off",
            next_step=f'set protocol = "{other}" in [mqtt]',
        )
    return BrokerRefused(
        f"{settings.where} refuses the login: {reason}",
        cause="user name or password are not those that the broker knows",
        next_step="check [mqtt] username and password",
    )


def _tls(error: ssl.SSLError, settings: BrokerSettings, certificate: OwnCertificate | None) -> SinkError:
    where, reason = settings.where, getattr(error, "reason", None) or ""  # OpenSSL's errors have one, ours do not
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerRefused(
            f"the certificate of {where} is not accepted: {error.verify_message}",
            cause="another authority than [mqtt.tls] ca signed it, it has expired, or it is for another host name",
            next_step=f"look at it: openssl s_client -connect {where} -showcerts",
        )
    if certificate is None and reason.endswith(NO_CERTIFICATE_ALERTS):
        return BrokerRefused(
            f"{where} wants a certificate of ours",
            cause="[mqtt.tls] has no cert and key",
            next_step="have a client certificate made for this store PC and set [mqtt.tls] cert and key",
        )
    for alert, words in CERTIFICATE_ALERTS.items():
        if reason.endswith(alert):
            return BrokerRefused(
                f"{where} refuses our certificate: {words} ({certificate or 'none was shown'})",
                cause="what the broker says of it",
                next_step="have a new certificate made, or check cafile and crlfile of the broker",
            )
    if isinstance(error, ssl.SSLEOFError) or reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
    ):
        return BrokerRefused(
            f"{where} does not speak TLS",
            cause="it is a port for plain MQTT",
            next_step="correct [mqtt] port, usually 8883 for TLS; or remove [mqtt.tls] for a broker on this machine",
        )
    return BrokerRefused(
        f"TLS with {where} failed: {error}",
        cause="the two sides have no TLS version or cipher in common",
        next_step="look into the broker's log",
    )
