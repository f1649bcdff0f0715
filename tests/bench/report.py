"""How measurements are told: a table for people, and a last line of JSON for programs."""

import json
import platform
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile; of a single value, that one."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def tell(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], summary: dict[str, object]) -> None:
    """Print the table, then `summary` and the machine as one line of JSON."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=110).print(table)
    print(json.dumps({"bench": title, "machine": f"{platform.machine()} Python {platform.python_version()}"} | summary))
