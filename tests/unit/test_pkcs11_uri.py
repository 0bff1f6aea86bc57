"""PKCS#11 URIs as ports: what is understood, what is refused, and that no PIN is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from optima_bridge.config import load
from optima_bridge.errors import ConfigError, UsageError
from optima_bridge.link.base import port_fault
from optima_bridge.link.pkcs11_uri import TokenUri, parse

MODULE = "module-path=/usr/lib/softhsm/libsofthsm2.so"


def test_a_token_is_named_by_what_it_says_of_itself() -> None:
    text = f"pkcs11:token=Kasse%201%3B%C3%A4;serial=fef71270f7fed746;model=SoftHSM%20v2;manufacturer=SoftHSM%20project?{MODULE}"
    assert parse(text) == TokenUri(
        text, "/usr/lib/softhsm/libsofthsm2.so", "Kasse 1;ä", "fef71270f7fed746", "SoftHSM v2", "SoftHSM project"
    )
    assert port_fault(text) == ""


def test_a_plus_is_a_plus_and_no_space() -> None:
    assert parse(f"pkcs11:token=a+b?{MODULE}").token == "a+b"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pkcs12:token=a", "not a PKCS#11 URI"),
        ("pkcs11:token=a", "needs the absolute path"),
        ("pkcs11:token=a?module-path=libsofthsm2.so", "needs the absolute path"),
        (f"pkcs11:?{MODULE}", "must name a token"),
        (f"pkcs11:token=a;token=b?{MODULE}", "names token twice"),
        (f"pkcs11:token=a?{MODULE}&{MODULE}", "names module-path twice"),
        (f"pkcs11:token=?{MODULE}", "the value of token is not percent-encoded text"),
        (f"pkcs11:token=a b?{MODULE}", "the value of token is not percent-encoded text"),
        (f"pkcs11:token=%G1?{MODULE}", "the value of token is not percent-encoded text"),
        (f"pkcs11:token=%FF?{MODULE}", "the value of token is not percent-encoded text"),
        (f"pkcs11:token=a;slot-id=1?{MODULE}", "the attribute 'slot-id' does not belong here: token and serial and"),
        (f"pkcs11:token=a;object=b?{MODULE}", "the attribute 'object' does not belong here"),
        (f"pkcs11:token=a;?{MODULE}", "the attribute '' does not belong here"),
        ("pkcs11:token=a?module-name=softhsm", "write module-path"),
        (f"pkcs11:token=a?pin-source=file:/pin&{MODULE}", "the PIN is not taken from the URI"),
        (f"pkcs11:token=a?pin-value=123456&{MODULE}", "a PIN must not stand in a URI"),
    ],
)
def test_what_is_no_name_of_a_token_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert why in caught.value.what
    assert "123456" not in str(caught.value.document())
    assert port_fault(text) == (caught.value.what if text.startswith("pkcs11:") else port_fault("COM3"))


@pytest.mark.parametrize("uri", [f"pkcs11:token=a?pin-value=123456&{MODULE}", "PKCS11:token=a?pin-value=123456"])
def test_the_configuration_refuses_a_pin_in_a_port_and_does_not_repeat_it(tmp_path: Path, uri: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[store]\nsite = "s1042"\n[devices.till-3]\ndriver = "pkcs11"\nport = "{uri}"\n')
    with pytest.raises(ConfigError) as caught:
        load(str(file), {})
    assert "config.toml:5:8: devices.till-3.port = " in str(caught.value)
    assert "pin-value=…" in str(caught.value)
    assert "123456" not in str(caught.value.document())
