"""The keys of the configuration: types, ranges, defaults, and what each is for.

Messages, the JSON schema and the reference page are made from these models. They are checked in pydantic's strict JSON
mode: no number is taken for a text, while arrays may become tuples and texts may become paths.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from optima_bridge.driver import Driver, DriverSettings
from optima_bridge.link.base import port_fault
from optima_bridge.model import Capability
from optima_bridge.secrets import Secret
from optima_bridge.topics import BRIDGE, SEGMENT

DEVICE_KEYS = ("driver", "port", "label", "enabled", "standby_of")


def local_node() -> str:
    """The host name made to fit a topic level: ``PC1.s1042.example`` becomes ``pc1``."""
    name = re.sub(r"[^a-z0-9-]+", "-", os.uname().nodename.partition(".")[0].lower())
    return name[:32].strip("-") or "pc"


def _not_the_bridge(name: str) -> str:
    if name == BRIDGE:
        raise ValueError(f"{BRIDGE!r} is the daemon's own name in the topics, choose another")
    return name


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _openable(port: str) -> str:
    if fault := port_fault(port):
        raise ValueError(fault)
    return port


Segment = Annotated[str, Field(pattern=f"^{SEGMENT.pattern}$")]
DeviceName = Annotated[Segment, AfterValidator(_not_the_bridge)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Port = Annotated[str, AfterValidator(_openable)]
Name = Annotated[str, Field(min_length=1)]


class Table(BaseModel):
    """A table of the configuration: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Store(Table):
    """Who we are in every topic."""

    site: Segment = Field(description="Name of the store.")
    node: Segment = Field(
        default_factory=local_node, description="Name of this PC; default: its host name made to fit."
    )


class Tls(Table):
    """TLS to the broker; an empty table trusts the system's certificate authorities."""

    ca: AbsolutePath | None = Field(
        default=None, description="Certificate authorities to trust instead of the system's, PEM."
    )
    cert: AbsolutePath | None = Field(default=None, description="Our certificate, PEM, where the broker asks for one.")
    key: AbsolutePath | None = Field(default=None, description="The private key of `cert`, PEM.")

    @model_validator(mode="after")
    def _pair(self) -> Tls:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key need each other: give both or none")
        return self


class Mqtt(Table):
    """The broker that events are mirrored to."""

    enabled: bool = Field(default=True, description="false: keep events in the journal only.")
    host: Name = Field(default="127.0.0.1", description="Name or address of the broker.")
    port: int = Field(default=1883, ge=1, le=65535, description="TCP port; with TLS usually 8883.")
    username: str = Field(default="", description="Empty: anonymous, or known by certificate.")
    password: Secret | None = Field(default=None, description="Reference to the password.")
    protocol: Literal["5", "3.1.1"] = Field(default="5", description="3.1.1 hides why the broker refuses a message.")
    keepalive_s: int = Field(
        default=30, ge=5, le=3600, description="Seconds after which a silent connection is tested."
    )
    client_id: str = Field(default="", description="Empty: made from site and node, stable over restarts.")
    tls: Tls | None = Field(default=None, description="The table makes the connection TLS; leave it out for plain TCP.")


class Identifiers(Table):
    """How key and card numbers appear on MQTT. A number is copyable: whoever reads it can make the key."""

    publish: Literal["hashed", "raw"] = Field(default="hashed", description="raw: every subscriber learns the numbers.")
    secret: Secret | None = Field(
        default=None, description="Key of the hash; the same one gives the same hashes on every PC."
    )


class Journal(Table):
    """Events on disk; what no sink has taken yet is kept longer than this."""

    directory: AbsolutePath = Field(default=Path("/var/lib/optima-bridge"), description="State directory.")
    keep_days: int = Field(default=7, ge=1, le=365, description="Replay window, days.")
    keep_mb: int = Field(default=200, ge=1, le=100_000, description="Upper bound on disk, MB.")


class Api(Table):
    """The socket that the command line and the page talk to; Unix groups give the roles."""

    enabled: bool = Field(default=True, description="false: no socket; `bridge status` and the page do not work.")
    socket: AbsolutePath = Field(default=Path("/run/optima-bridge/api.sock"), description="Path of the Unix socket.")
    view_group: Name = Field(default="optima", description="May look.")
    tech_group: Name = Field(default="optima-tech", description="May also test and reset devices.")
    admin_group: Name = Field(default="optima-admin", description="May also change credentials.")


class Enroll(Table):
    """Whose certificates may go into secure memory."""

    ca: AbsolutePath | None = Field(
        default=None, description="Certificate of a CA elsewhere, PEM, instead of the one of `bridge ca`."
    )
    crl: AbsolutePath | None = Field(default=None, description="Revocation list of that CA, PEM or DER.")
    ca_pin: Secret | None = Field(
        default=None, description="PIN of the token that holds the key of the store's CA, where one does."
    )
    crl_grace_days: int = Field(
        default=14, ge=0, le=365, description="How long a revocation list may be out of date, days."
    )

    @model_validator(mode="after")
    def _pair(self) -> Enroll:
        if (self.ca is None) != (self.crl is None):
            raise ValueError("ca and crl need each other: the CA of `bridge ca` has its own list")
        return self


class Log(Table):
    """What the daemon says about itself."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is logged.")
    format: Literal["auto", "console", "json", "journal"] = Field(
        default="auto", description="auto: journal under systemd, console on a terminal, else json."
    )


class Device(Table):
    """The keys that every device has; its driver's own keys stand in the same table and end up in `settings`."""

    driver: Name = Field(description="Name of an installed driver: bridge drivers list.")
    port: Port = Field(
        description="Path under /dev/serial/by-id/ or by-path/, which survive replugging; evdev:PATH, hidraw:PATH, sysfs:PATH."
    )
    label: str = Field(default="", description="What people at the store call it.")
    enabled: bool = Field(default=True, description="false: leave its port alone.")
    standby_of: DeviceName | None = Field(
        default=None, description="Another device at the same place: what both see is told once, under that one's name."
    )

    _driver_class: type[Driver] = PrivateAttr()
    _settings: DriverSettings = PrivateAttr()

    def bind(self, driver_class: type[Driver], settings: DriverSettings) -> None:
        """Complete the device; done once, by the loader."""
        self._driver_class = driver_class
        self._settings = settings

    @property
    def driver_class(self) -> type[Driver]:
        """The driver that `driver` names."""
        return self._driver_class

    @property
    def settings(self) -> DriverSettings:
        """An instance of the driver's own Settings."""
        return self._settings

    @property
    def abilities(self) -> frozenset[Capability]:
        """What this very device can do."""
        return self._settings.narrow(self._driver_class.info.capabilities)


class Config(Table):
    """The whole configuration."""

    schema_version: Literal[1] = Field(default=1, description="Version of these keys.")
    store: Store
    mqtt: Mqtt = Mqtt()
    identifiers: Identifiers = Identifiers()
    journal: Journal = Journal()
    api: Api = Api()
    enroll: Enroll = Enroll()
    log: Log = Log()
    devices: dict[DeviceName, Device] = Field(
        default={}, description="One table per device, by its name in the topics."
    )


def effective(config: Config) -> dict[str, Any]:
    """All values in force as nested JSON-serialisable tables, drivers' own keys included; what is unset is absent."""
    tree = config.model_dump(mode="json", exclude_none=True)
    for name, device in config.devices.items():
        tree["devices"][name] |= device.settings.model_dump(mode="json", exclude_none=True)
    return tree
