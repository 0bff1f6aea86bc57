"""Files of the CA on disk: there is no moment at which others could read the key or meet half a file."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from optima_bridge.errors import AccessDenied, CaExists, CaUnfit

PRIVATE_FILE_MODE = 0o600


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Fill a directory (0700) beside its place; it is renamed into place, on disk, when the block ends well.

    Raises:
        CaExists: there is something at its place; an empty directory is nothing.
        AccessDenied: this user may not write there.
        CaUnfit: the system refuses otherwise, for example because the disk is full.
    """
    making = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))  # mkdtemp makes it 0700
        _give_to_owner_of(directory.parent, making)
        yield making
        _sync(making)
        making.rename(directory)  # never over a directory that has something in it
        _sync(directory.parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and directory.exists():
            raise _occupied(directory) from error
        raise unusable(directory, error) from error
    finally:
        if making is not None:
            shutil.rmtree(making, ignore_errors=True)


def check_vacant(directory: Path) -> None:
    """Whether `new_directory` would find its place taken, told before anything is made.

    Raises:
        CaExists: see there. AccessDenied, CaUnfit: it cannot be looked at.
    """
    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        raise unusable(directory, error) from error
    if taken:
        raise _occupied(directory)


def write_file(path: Path, content: bytes) -> None:
    """A new file, 0600 from its first moment, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        _give_to_owner_of(path.parent, descriptor)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole new file in the place of the old one.

    Raises:
        AccessDenied, CaUnfit: as for `new_directory`.
    """
    making = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_file(making, content)
        making.replace(path)
        _sync(path.parent)
    except OSError as error:
        making.unlink(missing_ok=True)
        raise unusable(path.parent, error) from error


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """The key in a PEM file that only its owner can read.

    Raises:
        CaUnfit: others can read it, it is encrypted, damaged, or of a kind that is not accepted.
        FileNotFoundError, PermissionError: from the system.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise CaUnfit(
                f"{path} can be read or written by others (mode {mode:04o})",
                cause="it was copied, or its mode was changed",
                next_step=f"chmod 600 {path}; if others may have read it, make a new CA",
            )
        pem = file.read()
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CaUnfit(f"{path} holds no private key in PEM that can be read without a password") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CaUnfit(f"{path} holds a key of a kind that cannot sign certificates here: EC or RSA can")
    return key


def unusable(directory: Path, error: OSError) -> AccessDenied | CaUnfit:
    """Why the system does not let us have what is in `directory`."""
    if isinstance(error, PermissionError):
        return AccessDenied(
            f"no access to {directory}",
            cause="the directory belongs to another user, usually the service's",
            next_step="run it as that user: sudo -u optima-bridge bridge ca show",
        )
    return CaUnfit(
        f"{directory} cannot be used: {(error.strerror or str(error)).lower()}",
        cause="a full or read-only disk, or a path that is not a directory",
        next_step=f"ls -ld {directory}; df {directory.parent}",
    )


def _occupied(directory: Path) -> CaExists:
    return CaExists(f"there already is something in {directory}", directory=str(directory))


def _give_to_owner_of(directory: Path, made: Path | int) -> None:
    """What root makes in the service's directory must be the service's."""
    if os.geteuid() == 0:
        status = directory.stat()
        os.chown(made, status.st_uid, status.st_gid)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
