"""A certificate in a PKCS#11 token: smart cards, USB tokens, security modules, SoftHSM."""

from optima_drivers.pkcs11.driver import Pkcs11Driver

__all__ = ["Pkcs11Driver"]
