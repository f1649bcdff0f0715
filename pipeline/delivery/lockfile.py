"""One process at a time: an advisory lock beside a file."""

import fcntl
import os
from pathlib import Path

from pipeline.errors import ConfigError


class LockFile:
    """An exclusive `flock` held until `release`, or until the process ends in whatever way.

    The file holds the pid of its last holder and stays where it is: removing it would let two processes hold two files
    of one name. Raises ConfigError when another process holds it, naming that process.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot create the lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise ConfigError(
                f"{path} is held by process {holder}; stop that one, or give this one a store of its own"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
