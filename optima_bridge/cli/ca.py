"""``bridge ca``: the certificate authority of this store. Works on its directory; no daemon is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optima_bridge.cli.options import Settings
from optima_bridge.cli.pins import PinSource, pin_options
from optima_bridge.cli.render import flat, table
from optima_bridge.errors import UsageError

if TYPE_CHECKING:
    from optima_bridge.enroll.pki.ca import CertificateAuthority

DIRECTORY = click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("/var/lib/optima-bridge/ca"),
    show_default=True,
    help="Where the CA is.",
)
DAYS_IN_YEAR = 365.25


@click.group()
def ca() -> None:
    """Make and show the store's certificate authority.

    \b
      sudo -u optima-bridge bridge ca init --organization "Example Retail" --store s1042
      sudo -u optima-bridge bridge ca init … --token "pkcs11:token=store-ca?module-path=/PATH" --pin-file FILE
      sudo -u optima-bridge bridge ca show --pem
    """


@ca.command()
@DIRECTORY
@click.option("--organization", required=True, metavar="NAME", help="The retailer, as it stands in every certificate.")
@click.option("--store", required=True, metavar="ID", help="The store, as it stands in every certificate.")
@click.option("--years", type=click.IntRange(1, 20), default=10, show_default=True, help="How long the CA is valid.")
@click.option("--token", metavar="URI", help="Make the key in this PKCS#11 token; default: a file in the directory.")
@pin_options
@click.pass_obj
def init(
    settings: Settings,
    directory: Path,
    organization: str,
    store: str,
    years: int,
    token: str | None,
    pin: PinSource,
) -> None:
    """Make the CA of this store. One that is there is never overwritten."""
    from datetime import UTC, datetime, timedelta

    from optima_bridge.enroll.pki.ca import CertificateAuthority
    from optima_bridge.enroll.pki.custody import check_vacant
    from optima_bridge.enroll.pki.token import Custodian
    from optima_bridge.link.pkcs11_uri import parse

    check_vacant(directory)  # before anybody is asked for a PIN
    custodian = None
    if token is not None:
        uri = parse(token)
        custodian = Custodian(uri, pin.read(settings, ask=f"PIN of the token {uri.token or uri.serial}"))
    elif pin != PinSource():
        raise UsageError("a PIN is for the token that --token names")
    validity = timedelta(days=round(years * DAYS_IN_YEAR))
    now = datetime.now(UTC)
    made = CertificateAuthority.create(directory, organization, store, now, validity=validity, custodian=custodian)
    _print(settings, made)
    if settings.quiet:
        return
    if custodian is None:
        click.echo(f"{directory} holds the key of the CA: back it up where only the owner can read it", err=True)
    else:
        click.echo(
            f"the token holds the key of the CA, and there is no copy: back up {directory} for the rest", err=True
        )


@ca.command()
@DIRECTORY
@click.option("--pem", is_flag=True, help="Print the certificate of the CA, for those who are to trust it.")
@click.pass_obj
def show(settings: Settings, directory: Path, pem: bool) -> None:
    """Show what the CA is and what it has issued; never its key."""
    from optima_bridge.enroll.pki.ca import CertificateAuthority

    opened = CertificateAuthority.open(directory)
    if pem and not settings.json:
        click.echo(opened.certificate_pem(), nl=False)
    else:
        _print(settings, opened)


def _print(settings: Settings, shown: CertificateAuthority) -> None:
    document = describe(shown)
    if settings.json:
        settings.print_json({"schema": "optima.ca/1", **document, "pem": shown.certificate_pem()})
    else:
        table(settings, ("FACT", "VALUE"), flat(document))


def describe(shown: CertificateAuthority) -> dict[str, Any]:
    """The public facts about a CA; times RFC 3339, UTC."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    from optima_bridge.enroll.pki.profile import name_text

    certificate, crl, counts = shown.certificate, shown.current_crl(), shown.counts()
    assert crl.next_update_utc is not None
    return {
        "directory": str(shown.directory),
        "key": shown.custody,
        "subject": name_text(certificate.subject),
        "sha256": certificate.fingerprint(SHA256()).hex(),
        "not_after": f"{certificate.not_valid_after_utc:%FT%TZ}",
        "issued": counts.issued,
        "revoked": counts.revoked,
        "crl": {
            "number": crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number,
            "next_update": f"{crl.next_update_utc:%FT%TZ}",
        },
    }
