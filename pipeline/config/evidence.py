"""The part of a site file about the evidence that events rest on."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Count, NotNegative, Positive
from pipeline.errors import ConfigError
from pipeline.redact import redact_url

_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,62}(/[\w.=-]+)*/?")


@dataclass(frozen=True, slots=True, config=STRICT)
class EvidenceConfig:
    """The evidence of watches' events: on or off, its folder, and its bounds.

    `dir` is a folder, or `s3://BUCKET/PREFIX` (extra `s3`), None for a folder beside the store's file. What is older
    than `max_age_days`, beyond `max_mib` in all or beyond `per_watch` bundles of one watch on one stream goes, the
    oldest first; what is held stays. The disk keeps `min_free_mib` free of it. A clip begins `before_s` before the
    decision's hop and ends `after_s` behind it, in seconds; of each stream at most `clip_mib` of packets are kept for
    it. `queue` decisions wait to be written.
    """

    enabled: bool = True
    dir: str | None = None
    max_age_days: Positive = 7.0
    max_mib: Count = 2048
    per_watch: Count = 1000
    min_free_mib: Annotated[int, Field(ge=0)] = 512
    clip: bool = True
    before_s: Annotated[NotNegative, Field(le=120)] = 5.0
    after_s: Annotated[NotNegative, Field(le=120)] = 5.0
    clip_mib: Annotated[int, Field(ge=1, le=1024)] = 8
    queue: Annotated[int, Field(ge=1, le=1024)] = 32

    @property
    def bucket(self) -> str | None:
        """The URL of a bucket, if the evidence is kept in one."""
        return self.dir if self.dir is not None and self.dir.startswith("s3://") else None

    def check(self, store: str) -> None:
        """Raises ConfigError for what is no folder of this machine and no bucket."""
        if self.bucket is None:
            self.folder(store)
        elif not _BUCKET.fullmatch(self.bucket):
            raise ConfigError(
                f"evidence.dir is {redact_url(self.bucket)!r}; expected s3://BUCKET/PREFIX without credentials, which"
                " are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or the machine's role"
            )

    def folder(self, store: str) -> Path:
        """The folder, for a store's URL. Raises ConfigError for what is no folder of this machine."""
        if self.dir is not None:
            if "://" in self.dir:
                raise ConfigError(
                    f"evidence.dir is a URL of {self.dir.partition('://')[0]!r}; expected a folder of this machine, or"
                    " s3://BUCKET/PREFIX"
                )
            return Path(self.dir)
        scheme, mark, rest = store.partition("://")
        if mark and not scheme.startswith("sqlite"):
            return Path("resadapt-evidence")
        path = Path(rest.removeprefix("/") if mark else store)
        return path.with_name(f"{path.stem or 'resadapt'}-evidence") if path.name else Path("resadapt-evidence")
