"""Faults of a site file, in words for the person who wrote it."""

import difflib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, get_args, get_origin, get_type_hints

import yaml
from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from pipeline.redact import scrub

_BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}
_PLAIN = ("int_", "float_", "finite_number", "bool_")
_NAMES: dict[type, str] = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
}
_KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
    "list_type": "a list, such as [a, b]",
    "tuple_type": "a list, such as [a, b]",
}
"""Faults, by the beginnings of their types, and what is wanted there."""


def fault_of(error: Exception) -> str:
    """The place and the reason of a YAML error, without the parser's quotation of the file, which may be a password."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    grammar = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
    if isinstance(error, yaml.MarkedYAMLError) and grammar and "tag" not in str(error.problem):
        return f"{where} ({error.problem})"
    return where


def explain(error: ValidationError, root: type) -> Iterator[str]:
    """Each fault in words: where the value is, what it was and what was expected; for an unknown key the known ones.

    `root` is the dataclass of the whole file.
    """
    faults = error.errors()
    shared = {fault["loc"][1:] for fault in faults if fault["loc"][:1] == ("defaults",)}
    for fault in faults:
        if fault["loc"][:1] == ("streams",) and fault["loc"][2:] in shared:
            continue  # the defaults' fault, seen again through each stream
        path, holder, kind = _place(root, [str(part) for part in fault["loc"]])
        where = ".".join(path) or "the site file"
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            yield _unknown_key(path, holder, kind)
        elif fault["type"] in ("missing", "missing_argument"):
            yield f"{where}: missing; it must be given"
        elif fault["type"] == "string_pattern_mismatch" and path[-1] == "[key]":
            named = f"{'.'.join(path[:-2])}: {scrub(repr(fault['input']))}"
            yield f"{named} is no slug; expected lower-case letters, digits, - and _, at most 63"
        elif expected := _expected(fault):
            number = expected == "text" and isinstance(fault["input"], int | float)
            yield f"{where} is {_shown(fault)}; expected {expected}{', in quotes' if number else ''}"
        else:
            yield f"{where}: {fault['msg']}"


def _unknown_key(path: list[str], holder: object, kind: str) -> str:
    known = [item.name for item in fields(holder)] if is_dataclass(holder) else []
    close = difflib.get_close_matches(path[-1], known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    name, colon, _ = path[-1].partition(":")  # behind a colon without a space stands the value
    where = ".".join([*path[:-1], name]) + ("" if not colon else ", which needs a space behind its colon")
    of = f" of {kind}" if kind else ""
    return f"{where}: unknown key{of}{hint}; known keys{of}: {', '.join(known)}"


def _shown(fault: ErrorDetails) -> str:
    """The value where a number or a choice belongs; elsewhere what kind of thing it is, because it may be a password,
    or hold one."""
    value: object = fault["input"]
    plain = fault["type"] in (*_BOUNDS, "literal_error") or fault["type"].startswith(_PLAIN)
    if plain and not isinstance(value, dict | list | tuple):
        return scrub(repr(value))
    return "nothing" if value is None else _NAMES.get(type(value), "another thing")


def _expected(fault: ErrorDetails) -> str | None:
    """The value that pydantic expected, where that is a kind of value, a bound or one of some."""
    kind, about = fault["type"], fault.get("ctx", {})
    if (words := _BOUNDS.get(kind)) is not None:
        return words.format(**about)
    if kind == "literal_error":
        return str(about["expected"])
    return next((words for name, words in _KINDS.items() if kind.startswith(name)), None)


def _place(root: type, loc: list[str]) -> tuple[list[str], object, str]:
    """The keys that lead to a fault, the type of the mapping that holds the last, and its kind if it comes in kinds: in
    pydantic's `loc` the tag of the kind stands behind the key."""
    path: list[str] = []
    here: object = root
    holder, kind, of = here, "", ""
    for part in loc:
        kinds = _kinds(here)
        if part in kinds:
            here, kind = kinds[part], part
            continue
        path.append(part)
        holder, of = _plain(here), kind
        here, kind = _below(holder, part), ""
    return path, holder, of


def _kinds(here: object) -> dict[str, object]:
    """The discriminated unions of the site, by their tags."""
    members = [get_args(kind) for kind in get_args(get_args(here)[0])] if get_origin(here) is Annotated else []
    return {about.tag: kind for kind, *rest in filter(None, members) for about in rest if isinstance(about, Tag)}


def _plain(here: object) -> object:
    """A type without its annotations, and without None if it may be that."""
    here = get_args(here)[0] if get_origin(here) is Annotated else here
    return next((kind for kind in get_args(here) if is_dataclass(kind) and get_origin(here) is not dict), here)


def _below(holder: object, key: str) -> object:
    if isinstance(holder, type) and is_dataclass(holder):
        return get_type_hints(holder, include_extras=True).get(key)
    return get_args(holder)[1] if get_origin(holder) is dict else None


def key_names(kind: type) -> str:
    """The keys of a dataclass, to list them to a person."""
    return ", ".join(item.name for item in fields(kind))
