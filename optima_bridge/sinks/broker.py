"""Which broker, how to log in, and what its refusals mean in words a person can act upon."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from typing import Protocol

import msgspec
from aiomqtt.exceptions import MqttConnectError

from optima_bridge.errors import BrokerRefused, BrokerUnavailable, SinkError
from optima_bridge.sinks.mqtt_pipe import PublishPipe


class SecretSource(Protocol):
    """Something that can be read when it is needed and shows nothing when it is printed."""

    def read(self) -> bytes:
        """The secret. Raises OSError where it cannot be read."""


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files; empty `ca`: the system's authorities; empty `cert` and `key`: no client certificate."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class BrokerSettings(msgspec.Struct, frozen=True):
    """Where the broker is and who we are there. `keepalive_s` is at least 5."""

    host: str
    port: int
    client_id: str
    username: str = ""
    password: SecretSource | None = None
    tls: TlsFiles | None = None
    mqtt5: bool = True
    keepalive_s: int = 30


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """A client context that verifies the broker. Raises OSError (ssl.SSLError among them) for unusable files."""
    context = ssl.create_default_context(cafile=files.ca or None)
    if files.cert:
        context.load_cert_chain(files.cert, files.key or None)
    return context


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cut_short(error: SinkError, settings: BrokerSettings) -> SinkError:
    """What it means that sessions end as soon as they begin."""
    return BrokerRefused(
        f"sessions at {settings.host}:{settings.port} end as soon as they begin: {error.what}",
        cause=f"a second program connects with the client id {settings.client_id!r}",
        next_step="stop the second daemon, or give this one its own [store] node",
    )


def explain(error: Exception, settings: BrokerSettings, pipe: PublishPipe | None = None) -> SinkError:
    """What `error` means, with the likely cause and the next step."""
    where = f"{settings.host}:{settings.port}"
    if pipe is not None and pipe.error is not None:
        error = pipe.error
    text = str(error)
    if pipe is not None and pipe.disconnect_reason:
        if "taken over" in pipe.disconnect_reason.lower():
            return BrokerRefused(
                f"the session at {where} was taken over",
                cause=f"a second program connects with the client id {settings.client_id!r}",
                next_step="stop the second daemon, or give this one its own [store] node",
            )
        return BrokerUnavailable(f"{where} ended the session: {pipe.disconnect_reason}")
    if isinstance(error, MqttConnectError):
        reason = text.removeprefix("[code:").split("]", 1)[-1].strip() or text
        return BrokerRefused(
            f"{where} refuses the login: {reason}",
            cause="user name or password are not those that the broker knows",
            next_step="check [mqtt] username and password",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerRefused(
            f"the certificate of {where} is not accepted: {error.verify_message}",
            cause="another authority than [mqtt.tls] ca signed it, it has expired, or it is for another host name",
            next_step=f"look at it: openssl s_client -connect {where} -showcerts",
        )
    if isinstance(error, ssl.SSLError) or "SSL" in text or "tls" in text.lower():
        return BrokerRefused(
            f"TLS with {where} failed: {text}",
            cause="the broker refused our certificate (revoked, expired, missing), or one side has no TLS on this port",
            next_step="check [mqtt.tls] cert and key, and the broker's certificate settings",
        )
    if isinstance(error, socket.gaierror):
        return BrokerUnavailable(f"the name {settings.host} does not resolve", cause="a typing mistake, or no DNS now")
    if isinstance(error, TimeoutError) or "timed out" in text.lower():
        return BrokerUnavailable(
            f"{where} does not answer",
            cause="a firewall, a wrong address, a broker that hangs, or one that refused our certificate without a word",
        )
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return BrokerUnavailable(f"nothing listens on {where}", cause="the broker is stopped, or listens elsewhere")
    if isinstance(error, FileNotFoundError | PermissionError):
        return BrokerUnavailable(
            f"a file that the login needs cannot be read: {text}", cause="wrong path or owner", next_step="check [mqtt]"
        )
    return BrokerUnavailable(f"the connection to {where} broke: {text or type(error).__name__}")
