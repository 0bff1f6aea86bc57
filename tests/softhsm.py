"""SoftHSM2, a PKCS#11 module with tokens in files, and the programs of others that look at them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

PIN, SO_PIN = "123456", "11111111"
_PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
MODULE = next((place for place in _PLACES if Path(place).exists()), _PLACES[0])
TIMEOUT_S = 30


def why_not() -> str:
    """Why tests with it cannot run here; empty: they can."""
    if importlib.util.find_spec("pkcs11") is None:
        return "python-pkcs11 is not installed"
    if shutil.which("softhsm2-util") is None or not Path(MODULE).exists():
        return "the Debian package softhsm2 is not installed"
    return ""


needs_softhsm = pytest.mark.skipif(bool(why_not()), reason=why_not())
needs_pkcs11_tool = pytest.mark.skipif(
    shutil.which("pkcs11-tool") is None, reason="pkcs11-tool (Debian package opensc) is not installed"
)
needs_p11tool = pytest.mark.skipif(
    shutil.which("p11tool") is None, reason="p11tool (Debian package gnutls-bin) is not installed"
)


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory where there is such a thing: the disk's fsync is not what is tested."""
    shared = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)


class SoftHsm:
    """Tokens in a folder of their own; this process uses them, until another folder is made."""

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens"
        self.tokens.mkdir(parents=True)
        conf = folder / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(conf)}
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self.use()

    def use(self) -> None:
        """Have this process see these tokens and no others."""
        give_back()
        os.environ.update(self.environment)  # read when the module is initialised

    def make(self, label: str) -> str:
        """A new token; returns its serial number."""
        before = self.serials()
        self.ask("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN)
        [serial] = self.serials() - before
        return serial

    def serials(self) -> set[str]:
        return set(re.findall(r"Serial number: +([0-9a-f]+)", self.ask("softhsm2-util", "--show-slots")))

    def uri(self, label: str, **attributes: str) -> str:
        named = {"token": label, **attributes}
        path = ";".join(f"{name}={quote(value)}" for name, value in named.items())
        return f"pkcs11:{path}?module-path={MODULE}"

    def tool(self, label: str, *words: str, pin: bool = False) -> str:
        """pkcs11-tool on one token."""
        login = ("--login", "--pin", PIN) if pin else ()
        return self.ask("pkcs11-tool", "--module", MODULE, "--token-label", label, *login, *words)

    def ask(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        done = subprocess.run(words, env=environment, capture_output=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace")


def give_back() -> None:
    """Have the module end in this process, whoever left it open; the next one to use it reads all files anew."""
    from optima_bridge.link.cryptoki_library import library

    module = library(MODULE)

    def release() -> None:
        for session in [*module.users]:
            session.release()

    module.thread.wait(release, TIMEOUT_S)
