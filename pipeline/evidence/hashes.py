"""Identities of the weights that answered and of the engine that sized the frames: hashes of files, taken once."""

import hashlib
from pathlib import Path

from allocator_engine.digests import sha256_of
from allocator_engine.manifest import manifest_path
from pipeline.build import allocator_name, engine_of, weight_files
from pipeline.config.mllm import MLLMConfig
from pipeline.config.site import SiteConfig
from pipeline.errors import ResadaptError
from pipeline.evidence.bundle import ModelNote, Sizing
from pipeline.mllm.base import MLLMInfo
from pipeline.redact import redact_mllm

WHOLE_BYTES = 512 * 2**20
"""Up to so many bytes weights are hashed whole; of more, the first and last MiB of each file, its name and size."""
_MIB = 2**20


def model_of(config: MLLMConfig, info: MLLMInfo) -> ModelNote:
    """The model that answers, with the hash of its weights if they are in a local folder."""
    name = redact_mllm(info.name)
    files = weight_files(config)
    if not files:
        return ModelNote(name, info.family, info.meaningful)
    try:
        if sum(file.stat().st_size for file in files) <= WHOLE_BYTES and len(files) == 1:
            return ModelNote(name, info.family, info.meaningful, sha256_of(files[0]), f"all of {files[0].name}")
        digest = hashlib.sha256()
        for file in files:
            digest.update(_sample(file))
    except OSError:
        return ModelNote(name, info.family, info.meaningful)
    hashed = f"name, size, first and last MiB of {len(files)} files"
    return ModelNote(name, info.family, info.meaningful, digest.hexdigest(), hashed)


def sizing_of(site: SiteConfig) -> Sizing:
    """The allocator that sizes the frames of a site."""
    name = allocator_name(site)
    if name != "learned":
        return Sizing(name)
    try:
        return Sizing(name, sha256_of(manifest_path(engine_of(site))))
    except (OSError, ResadaptError):
        return Sizing(name)


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as opened:
        first = opened.read(_MIB)
        opened.seek(max(size - _MIB, 0))
        return b"\0".join((file.name.encode(), str(size).encode(), first, opened.read(_MIB)))
