"""One name, one thing: no class name, a leading underscore ignored, stands in two files of the tree."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "allocator_engine", "samples")


def test_a_class_name_stands_for_one_thing():
    places: dict[str, list[str]] = defaultdict(list)
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.removeprefix("_")].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
