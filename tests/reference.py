"""The generated tables of deploy/OPERATIONS.md: `python -m tests.reference` writes them anew.

Each stands between `<!-- NAME -->` and `<!-- end -->`.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from typer.main import get_command

from pipeline.cli.main import app as resadapt
from pipeline.lab.cli.main import app as resadapt_allocator
from pipeline.metrics import Metrics
from pipeline.mllm.counters import Counters

OPERATIONS = Path(__file__).parents[1] / "deploy" / "OPERATIONS.md"


def metrics() -> Iterator[str]:
    made = Metrics()
    made.watch_mllm(lambda: asdict(Counters()))
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for family in made.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(made.labels[family.name])
        yield f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


def commands() -> Iterator[str]:
    for program, app in (("resadapt", resadapt), ("resadapt-allocator", resadapt_allocator)):
        yield from described(program, get_command(app))


def described(program: str, command: object) -> Iterator[str]:
    """A section for each command at or below this one."""
    below = getattr(command, "commands", {})
    for name, one in below.items():
        yield from described(f"{program} {name}", one)
    if below:
        return
    takes = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.help and not one.hidden]
    usage = " ".join(one.name.upper() for one in takes)
    yield f"### `{' '.join(filter(None, [program, usage]))}`"
    yield ""
    yield from (command.help or "").splitlines()
    yield ""
    if takes or options:
        yield "| | default | meaning |"
        yield "|---|---|---|"
    for one in (*takes, *options):
        named = one.name.upper() if one in takes else "`, `".join([*one.opts, *one.secondary_opts])
        default = "" if one.default is None or one.default is False or one.required else f"`{one.default}`"
        yield f"| `{named}` | {default} | {' '.join((one.help or '').split()).replace('|', '/')} |"
    yield ""


TABLES = {"metrics": metrics, "commands": commands}


def filled(text: str) -> str:
    """The document with its generated tables as they are now."""
    for name, lines in TABLES.items():
        before, mark, behind = text.partition(f"<!-- {name} -->\n")
        assert mark, f"expected <!-- {name} --> in the document"
        text = before + mark + "\n".join(lines()).rstrip("\n") + "\n" + behind[behind.index("<!-- end -->") :]
    return text


if __name__ == "__main__":
    OPERATIONS.write_text(filled(OPERATIONS.read_text()))
