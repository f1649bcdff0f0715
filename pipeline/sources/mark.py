"""Marks by which a recording says which generated world it shows, so that nothing real is taken for it."""

import av
from av.error import FFmpegError

from pipeline.errors import ConfigError
from pipeline.sources.address import parse_address

YARD = "resadapt-stream yard"
"""The mark of the yard's recordings, in their container's metadata as `comment`."""


def marked(url: str) -> str | None:
    """The comment in the metadata of a local recording; None for everything else, and for what cannot be read."""
    try:
        path = parse_address(url).path
        if path is None or not path.is_file():
            return None
        with av.open(f"file:{path}", "r", metadata_errors="replace") as container:
            return container.metadata.get("comment") or container.metadata.get("COMMENT")
    except (ConfigError, FFmpegError, OSError):
        return None
