"""One process for one journal, and for one audit log."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from optima_bridge.errors import JournalError


def lock_directory(directory: Path, name: str = "journal") -> int:
    """Take what `name` says in the directory for this process; the descriptor holds it, the kernel frees it whatever happens.

    Raises:
        JournalError: another process has it; ``data['pid']`` says which.
        OSError: the lock file cannot be made.
    """
    lock = os.open(directory / f"{name.replace(' ', '-')}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise JournalError(
            f"the {name} in {directory} is in use by pid {holder}",
            cause="a second copy of the daemon",
            next_step=f"see what it is: ps -p {holder}; stop one of the two",
            pid=int(holder) if holder.isdigit() else None,
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
