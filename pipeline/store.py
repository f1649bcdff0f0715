"""What must survive a crash: stream states and outgoing events, in one SQLite file or a PostgreSQL database.

The store is synchronous; call it from threads. Every method raises StoreUnavailable when the database cannot answer
(full disk, held lock, lost server) and then has changed nothing. It never holds URLs or credentials.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from pathlib import Path
from typing import TypedDict

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
