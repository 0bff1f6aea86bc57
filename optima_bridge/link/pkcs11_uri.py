"""PKCS#11 URIs (RFC 7512), as far as they name a token and the module that reaches it.

    pkcs11:token=optima-ctl-1;serial=fef71270f7fed746?module-path=/usr/lib/softhsm/libsofthsm2.so
           └── path: attributes joined by ; ─────┘└── query: attributes joined by & ────┘

Values are percent-encoded UTF-8. What names something else than a token (an object, a slot) is refused and not ignored: a
restriction that is not looked at finds another token than was meant. Secrets are refused: a URI is written down and shown.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from optima_bridge.errors import UsageError

SCHEME = "pkcs11:"
TOKEN_KEYS = ("token", "serial", "model", "manufacturer")
MODULE_PATH = "module-path"
HOW_TO = "write it as pkcs11:token=LABEL;serial=NUMBER?module-path=/PATH/OF/MODULE.so"
VALUE = re.compile(r"(?:[A-Za-z0-9._~:\[\]@!$'()*+,=&/?|-]|%[0-9A-Fa-f]{2})+")  # pk11-pchar and pk11-qchar, section 2.3
REASONS = {
    "pin-value": "a PIN must not stand in a URI, which many can read: refer to it by pin in the settings",
    "pin-source": "the PIN is not taken from the URI: refer to it by pin in the settings",
    "module-name": "a module is named by its absolute path here: write module-path",
}


class TokenUri(msgspec.Struct, frozen=True):
    """Which token, by which module.

    Attributes:
        text: the URI as it was written; nothing in it is secret.
        module_path: absolute path of the vendor's library.
        token, serial, model, manufacturer: what the token must say of itself; None: anything.
    """

    text: str
    module_path: str
    token: str | None = None
    serial: str | None = None
    model: str | None = None
    manufacturer: str | None = None


def parse(text: str) -> TokenUri:
    """The token that a URI names.

    Raises:
        UsageError: it is not of this form; secrets in it are not repeated.
    """
    if not text.startswith(SCHEME):
        raise UsageError("not a PKCS#11 URI", next_step=HOW_TO)
    path, _, query = text.removeprefix(SCHEME).partition("?")
    attributes = _attributes(path, ";", TOKEN_KEYS)
    module_path = _attributes(query, "&", (MODULE_PATH,)).get(MODULE_PATH, "")
    if not module_path.startswith("/"):
        raise UsageError("needs the absolute path of the token's module as ?module-path=/…", next_step=HOW_TO)
    if not attributes:
        raise UsageError("must name a token, by its label or serial number", next_step=HOW_TO)
    return TokenUri(text, module_path, **attributes)


def _attributes(part: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for attribute in part.split(separator) if part else ():
        name, _, value = attribute.partition("=")
        if name not in known:
            what = REASONS.get(name) or f"the attribute {name!r} does not belong here: {' and '.join(known)} do"
            raise UsageError(what, next_step=HOW_TO)
        if name in found:
            raise UsageError(f"names {name} twice", next_step=HOW_TO)
        try:
            found[name] = unquote(value if VALUE.fullmatch(value) else "%FF", errors="strict")
        except UnicodeDecodeError as error:
            raise UsageError(f"the value of {name} is not percent-encoded text", next_step=HOW_TO) from error
    return found
