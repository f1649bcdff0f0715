"""YAML as site files mean it: names are text as they are typed, and what would surprise is refused by line.

Of the scalars of YAML 1.1 only those are read that YAML 1.2 kept: `on`, `off`, `yes` and `no` are text, and so are 007,
1_000, 12:30 and dates. Fields that hold a switch take `on` and `off` from text as well.
"""

import re
from typing import ClassVar

import yaml

from pipeline.errors import ConfigError

MAX_DEPTH = 32
"""Mappings and lists within each other."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"-?(?:0|[1-9][0-9]*)",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "null": r"~|null|Null|NULL|",
    "merge": "<<",
}


class SiteLoader(yaml.SafeLoader):
    """Loads a site file. Raises ConfigError naming the line for a key written twice and for what is nested too deep."""

    yaml_implicit_resolvers: ClassVar[dict[str | None, list[tuple[str, re.Pattern[str]]]]] = {  # type: ignore[misc]
        None: [(f"tag:yaml.org,2002:{kind}", re.compile(rf"^(?:{text})$")) for kind, text in _PLAIN.items()]
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise ConfigError(f"line {line}: nested deeper than {MAX_DEPTH}; a site file needs no such depth")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    # The stubs take an anchor for a mapping of nodes.
    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:  # type: ignore[override]
        node = super().compose_mapping_node(anchor)  # type: ignore[arg-type]
        node.value = [(_as_text(key), value) for key, value in node.value]
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                more = "; several mappings are merged as <<: [*one, *two]" if key.tag == _MERGE else ""
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: {key.value!r} is written twice; expected each key once{more}")
            seen.add(key.value)
        return node


def _as_text(key: yaml.Node) -> yaml.Node:
    """A key as a name; the node itself may be an anchored value elsewhere."""
    if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
        return key
    return yaml.ScalarNode(_TEXT, key.value, key.start_mark, key.end_mark, key.style)
