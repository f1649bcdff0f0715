"""Evidence in a bucket of an object store that speaks S3 (obstore)."""

import errno
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from pipeline.delivery.manifests import StoredFile
from pipeline.errors import ConfigError
from pipeline.evidence.files import FILE, MARK, Kind, checked_path, gone, named, unchanged
from pipeline.redact import scrub

PATIENCE = timedelta(seconds=15)
"""How long one call is tried again."""
TIMEOUT = timedelta(seconds=10)


class EvidenceBucket:
    """Objects below `s3://BUCKET/PREFIX`.

    Endpoint, region and credentials are those of the environment: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, or the role of the machine. Methods block. Raises OSError for what the bucket cannot do now,
    ConfigError for settings that it can never work with.
    """

    def __init__(self, url: str) -> None:
        self.place = url
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        try:
            self._objects = S3Store(
                bucket,
                prefix=prefix or None,
                client_options={"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "allow_http": True},
                retry_config={"max_retries": 3, "retry_timeout": PATIENCE},
            )
        except BaseError as error:
            raise ConfigError(f"evidence.dir {url} cannot be used: {_first_line(error)}") from error

    def open(self, store: str) -> None:
        """Make the place that of a store. Raises ConfigError where it is another store's."""
        with self._named("opened"):
            try:
                obstore.put(self._objects, MARK, store.encode(), mode="create")
            except AlreadyExistsError:
                owner = bytes(obstore.get(self._objects, MARK).bytes()).decode(errors="replace").strip()
                if owner != store:
                    raise ConfigError(
                        f"evidence.dir {self.place} holds the evidence of another store (see {MARK} in it); give this"
                        " one a prefix of its own"
                    ) from None

    def put(self, data: bytes, kind: Kind, day: datetime) -> tuple[StoredFile, bool]:
        """Keep bytes under their hash. Returns where they lie, and True if they are new."""
        file = named(data, kind, day)
        with self._named("written to"):
            try:
                obstore.put(self._objects, file.path, data, mode="create")
            except AlreadyExistsError:
                return file, False
        return file, True

    def read(self, file: StoredFile, name: str) -> bytes:
        """The bytes of a file. Raises EvidenceDamaged, by `name`, for one that is gone or was changed."""
        with self._named("read"):
            try:
                data = bytes(obstore.get(self._objects, checked_path(file)).bytes())
            except FileNotFoundError:
                raise gone(file, name, "the bucket") from None
        return unchanged(data, file, name)

    def has(self, file: StoredFile) -> bool:
        """True if a file exists."""
        with self._named("read"):
            try:
                obstore.head(self._objects, file.path)
            except FileNotFoundError:
                return False
        return True

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files. Those that are gone already are fine."""
        ours = [path for path in paths if FILE.fullmatch(path)]
        with self._named("pruned"):
            for path in ours:
                obstore.delete(self._objects, path)

    def sweep(self, named_paths: frozenset[str]) -> int:
        """Remove files of the evidence that nobody names. Returns how many."""
        with self._named("listed"):
            there = [found["path"] for part in obstore.list(self._objects) for found in part]
        stray = [path for path in there if FILE.fullmatch(path) and path not in named_paths]
        self.remove(stray)
        return len(stray)

    def free_bytes(self) -> int:
        """A bucket has no end of its own: what is kept is bounded by `max_mib` alone."""
        return sys.maxsize

    @contextmanager
    def _named(self, done: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise OSError(errno.EIO, f"the bucket {self.place} cannot be {done}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The library's words without its debugging output."""
    return scrub(str(error).partition("\n")[0])
