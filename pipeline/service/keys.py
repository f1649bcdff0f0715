"""The first key of an API, made in the store beside a service that does not run yet."""

from datetime import datetime

from pipeline.clock import Clock
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.registry.keys import ROLES, Keys


def create_beside(
    store_url: str,
    name: str,
    role: str,
    tags: list[str],
    expires_at: datetime | None,
    clock: Clock,
    given: str | None = None,
) -> str:
    """Make a key in a store, by default of a new text, and return the text that proves it. One that is `given` and was
    there before, even if it is revoked, is left as it is. Raises ConfigError and EntryPresent."""
    known = next((one for one in ROLES if one == role), None)
    if known is None:
        raise ConfigError(f"--role is {role!r}; expected one of {', '.join(ROLES)}")
    store = Store(store_url, clock)
    try:
        keys = Keys(store.database, clock)
        if given is not None and keys.knows(given):
            return given
        return keys.create(name, known, tags, expires_at, by="local", given=given)[1]
    finally:
        store.close()
