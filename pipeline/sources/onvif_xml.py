"""Parsing of ONVIF devices' messages: untrusted XML, bounded in size, depth and number, without entities. Pure
functions."""

import io
from collections.abc import Iterator
from typing import TypeAlias
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

MAX_BYTES = 256 * 1024
"""Largest reply that is read."""
MAX_DEPTH = 40
MAX_ELEMENTS = 20_000
MAX_TEXT = 300
"""Characters of a text that is shown, such as a name."""

Tree: TypeAlias = Element


def parse_xml(data: bytes) -> Tree:
    """The document in `data`. Raises ValueError, which repeats nothing of it, for what is none or beyond a bound."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 1024} KiB")
    depth = elements = 0
    root: Tree | None = None
    try:
        for happened, element in iterparse(io.BytesIO(data), events=("start", "end"), forbid_dtd=True):
            depth += 1 if happened == "start" else -1
            elements += happened == "start"
            root = element if root is None else root
            if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH}, or has more than {MAX_ELEMENTS} elements")
    except DefusedXmlException:
        raise ValueError("it declares entities, which no device needs") from None
    except (ParseError, LookupError, UnicodeError):
        raise ValueError("it is not XML") from None
    if root is None:
        raise ValueError("it is empty")
    return root


def every(tree: Tree, *path: str) -> Iterator[Tree]:
    """The elements that a path of local names leads to: its first anywhere below `tree`, each other one directly
    below the one before."""
    for element in tree.iter():
        if local(element) == path[0]:
            yield from _below(element, path[1:])


def _below(element: Tree, path: tuple[str, ...]) -> Iterator[Tree]:
    if not path:
        yield element
        return
    for child in element:
        if local(child) == path[0]:
            yield from _below(child, path[1:])


def text_of(tree: Tree, *path: str) -> str:
    """The text of the first element that a path leads to, printable and bounded; empty where there is none."""
    for element in every(tree, *path):
        return "".join(one for one in (element.text or "").strip() if one.isprintable())[:MAX_TEXT]
    return ""


def whole_text_of(tree: Tree, *path: str) -> str:
    """The same without the bound of what is shown: for lists and addresses."""
    for element in every(tree, *path):
        return (element.text or "").strip()
    return ""


def number_of(tree: Tree, *path: str) -> int:
    """The whole number of the first element that a path leads to; 0 where there is none that is sensible."""
    text = text_of(tree, *path).partition(".")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def local(element: Tree) -> str:
    """The name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]
