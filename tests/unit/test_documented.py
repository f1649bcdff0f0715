"""What people can set, see or type is documented: settings in the example site, the rest in deploy/OPERATIONS.md."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
import yaml

import pipeline
from pipeline.config.mllm import MLLMConfig
from pipeline.config.site import Defaults, SiteConfig, StreamPolicy, parse_site
from pipeline.mllm.counters import Counters
from tests.reference import OPERATIONS, filled

EXAMPLE = (OPERATIONS.parent / "site.example.yaml").read_text()
DOCUMENT = OPERATIONS.read_text()
ALTERNATIVE = "#: "
OF_A_SITE = {"use", "api_key", "url", "question", "streams", "security", "secret", "display_name"}
"""Settings whose value in the example is one of a site, not the default."""


def sites() -> list[Mapping[str, object]]:
    """The example, and the example with each of its alternatives."""
    whole = yaml.safe_load(EXAMPLE)
    lines = [line.removeprefix(ALTERNATIVE) for line in EXAMPLE.splitlines() if line.startswith(ALTERNATIVE)]
    blocks = re.split(r"\n(?=\w)", "\n".join(lines))
    return [whole, *(whole | yaml.safe_load(block) for block in blocks)]


def settings(kind: object, at: str = "") -> Iterator[str]:
    """The keys of a site, dotted; below what is keyed by slug and below a kind only their own names."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(kind, type) and is_dataclass(kind):
        for name, below in get_type_hints(kind, include_extras=True).items():
            inherited = at == "streams" and name in {one.name for one in fields(StreamPolicy)}
            if not inherited:
                yield f"{at}.{name}".strip(".")
                yield from settings(below, f"{at}.{name}".strip("."))
    elif get_origin(kind) is dict:
        yield from settings(get_args(kind)[1], at)
    elif at not in ("gpu_budget",):  # its keys are those of a stream's budget
        for one in get_args(kind):
            yield from settings(one, at)


def written(value: object, at: str = "") -> Iterator[str]:
    """The keys that stand in an example, as `settings` names them."""
    if not isinstance(value, dict):
        return
    for key, below in value.items():
        slug = at in ("streams", "watches", "sinks")
        if not slug:
            yield f"{at}.{key}".strip(".")
        for inner in written(below, "" if slug else f"{at}.{key}".strip(".")):
            yield f"{at}.{inner}" if slug else inner


def test_every_setting_stands_in_the_example():
    here = {key for site in sites() for key in written(site)} | {"sinks.url"}
    assert set(settings(SiteConfig)) - here == set()


@pytest.mark.parametrize("site", sites(), ids=lambda site: str(site["mllm"])[:24])
def test_the_example_and_its_alternatives_are_accepted_and_hold_the_defaults(site):
    parsed = parse_site(site)
    assert parsed.defaults == Defaults()
    assert parsed.mllm == type(parsed.mllm)(use=parsed.mllm.use, **own(parsed.mllm))
    helmet, plain = parsed.watches["helmet"], parse_site({"watches": {"w": {"question": "x"}}}).watches["w"]
    assert all(
        getattr(helmet, one.name) == getattr(plain, one.name) for one in fields(plain) if one.name not in OF_A_SITE
    )
    bare = parse_site({})
    assert (parsed.engine, parsed.store, parsed.metrics) == (bare.engine, bare.store, bare.metrics)
    assert (parsed.keep, parsed.api) == (bare.keep, bare.api)
    assert (parsed.gpu_budget, parsed.drain_s) == (bare.gpu_budget, bare.drain_s)


def own(mllm: MLLMConfig) -> dict[str, object]:
    return {one.name: getattr(mllm, one.name) for one in fields(mllm) if one.name in OF_A_SITE - {"use"}}


def test_every_key_of_the_example_has_a_comment():
    keys = [line for line in EXAMPLE.splitlines() if re.match(r"(#: )?\s*[a-z_]+:", line)]
    slugs = {"gate:", "dock:", "helmet:", "plant:", "pager:", "home:", "team:", "queue:"}
    assert [line for line in keys if "#" not in line.removeprefix(ALTERNATIVE) and line.strip() not in slugs] == [
        "#: mllm:"
    ] * 2


def test_the_generated_tables_are_those_of_the_code():
    assert filled(DOCUMENT) == DOCUMENT, "run: python -m tests.reference"


def event_types() -> set[str]:
    """Texts in the code that are the type of an event."""
    kinds = re.compile(r"(stream|watch|mllm|sink|service|registry|node|zone)\.[a-z_]+")
    files = Path(pipeline.__path__[0]).rglob("*.py")
    constants = (
        node for file in files for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)
    )
    found = {one.value for one in constants if isinstance(one.value, str) and kinds.fullmatch(one.value)}
    return {one for one in found if not one.endswith(".html")}  # the page's templates


def test_every_event_type_is_documented():
    assert {"watch.opened", "stream.lost"} < event_types()
    assert {kind for kind in event_types() if f"| `{kind}` |" not in DOCUMENT} == set()


def test_every_trouble_of_an_mllm_is_documented():
    assert {one.name for one in fields(Counters) if f"`{one.name}`" not in DOCUMENT} == set()
