"""The first key of an API, made in the store beside a service that does not run yet."""

from datetime import datetime

from pipeline.clock import Clock
from pipeline.delivery.store import Store
from pipeline.errors import ConfigError
from pipeline.registry.keys import ROLES, Keys


def create_beside(
    store_url: str, name: str, role: str, tags: list[str], expires_at: datetime | None, clock: Clock
) -> str:
    """Make a key in a store and return the text that proves it. Raises ConfigError and EntryPresent."""
    known = next((one for one in ROLES if one == role), None)
    if known is None:
        raise ConfigError(f"--role is {role!r}; expected one of {', '.join(ROLES)}")
    store = Store(store_url, clock)
    try:
        return Keys(store.database, clock).create(name, known, tags, expires_at, by="local")[1]
    finally:
        store.close()
