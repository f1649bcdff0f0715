"""Versions of what a measurement depends on, so that figures name what they were measured on.

A version is declared here and raised by hand when what its subject produces changes; moving or renaming code changes
none. Golden outputs of every subject are kept with the tests, which name the version to raise when they differ.
"""

from pathlib import Path
from typing import Literal

from allocator_engine.digests import SHORT, of_texts, sha256_of

Subject = Literal["world", "grammar", "truth", "evaluation", "tasks", "training"]

VERSIONS: dict[Subject, str] = {
    "world": "d7fad19b916f",
    "grammar": "e5b6812bd494",
    "truth": "2b0230bfc32a",
    "evaluation": "1cffcbc64414",
    "tasks": "c41e9d07a2f6",
    "training": "929f83e43853",
}
"""The current version of each subject: pictures and facts; questions; truths; the yard card's figures; the tasks on
which allocators are compared; the Allocator's training episodes. Any new text is a new version."""

_JOINT = {
    ("d7fad19b916f", "2b0230bfc32a"): "9a695bbcc513",
    ("d7fad19b916f", "e5b6812bd494", "2b0230bfc32a", "c41e9d07a2f6"): "229b57c952fa",
}
"""Names under which kept files already hold figures of these versions together."""


def version(*subjects: Subject) -> str:
    """The version of one subject, or one name for those of several."""
    versions = tuple(VERSIONS[subject] for subject in subjects)
    if len(versions) == 1:
        return versions[0]
    return _JOINT.get(versions) or of_texts(versions)


def of_file(file: Path) -> str:
    """Short hash of a file's bytes."""
    return sha256_of(file)[:SHORT]
