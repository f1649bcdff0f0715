"""Selection of the streams that a watch stands on: named, by a tag, or all that have its zone. Pure functions."""

from collections.abc import Collection

TAG = "tag:"
"""How a selector that names a tag begins."""


def selects(
    selectors: Collection[str], slug: str, tags: Collection[str], zone: str | None = None, zones: Collection[str] = ()
) -> bool:
    """True if selectors (slugs and `tag:TAG`; none of them: every stream) match a stream of a slug and tags, which has
    the `zone`, if one is wanted, among its `zones`."""
    if zone is not None and zone not in zones:
        return False
    if not selectors or slug in selectors:
        return True
    return any(f"{TAG}{tag}" in selectors for tag in tags)
