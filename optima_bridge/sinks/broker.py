"""Which broker, and how to log in."""

from __future__ import annotations

import ipaddress
from typing import Protocol

import msgspec

from optima_bridge.sinks.tls import TlsFiles


class SecretSource(Protocol):
    """Something that can be read when it is needed and shows nothing when it is printed."""

    def read(self) -> bytes:
        """The secret. Raises BridgeError where it cannot be read."""


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

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"

    @property
    def who(self) -> str:
        """The user that the broker knows us as, as far as we can tell."""
        return self.username or ("the certificate's user" if self.tls and self.tls.cert else "anonymous")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


__all__ = ["BrokerSettings", "SecretSource", "TlsFiles", "is_loopback"]
