"""Tests show behaviour: they reach for nothing that the product keeps to itself."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
OF_LIBRARIES = {"_asdict"}
"""Public in spite of their underscore."""


def private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.startswith("__") and name not in OF_LIBRARIES


def reached_for(tree: ast.AST) -> list[ast.expr]:
    """Private attributes of other things than the object itself, also those that are set by their names."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if isinstance(node, ast.Attribute) and private(node.attr) and not own:
            found.append(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            found += [one for one in node.args if isinstance(one, ast.Constant) and _names_private(one.value)]
    return found


def _names_private(value: object) -> bool:
    return isinstance(value, str) and any(private(part) for part in value.split("."))


def test_no_test_reaches_for_what_is_private():
    places = [
        f"{file.relative_to(TESTS)}:{node.lineno} {ast.unparse(node)}"
        for file in TESTS.rglob("*.py")
        for node in reached_for(ast.parse(file.read_text()))
    ]
    assert places == []
