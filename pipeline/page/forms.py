"""Forms made of JSON Schemas: what the API takes, as fields that people fill in, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs

from fastapi import Request

from pipeline.page.render import has_text, text

FieldKind = Literal["text", "long", "number", "whole", "flag", "choice", "list", "pair", "json"]
_MOST_FIELDS = 400


@dataclass(frozen=True, slots=True)
class FormField:
    """One value of a spec: `name` is its dotted path; `value` what stands in it (a pair has two), `default` what holds
    where nothing does."""

    name: str
    kind: FieldKind
    label: str
    help: str = ""
    value: str | tuple[str, str] = ""
    default: str = ""
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    error: str = ""

    @property
    def id(self) -> str:
        """Its id in a document."""
        return f"f-{self.name.replace('.', '-')}"


@dataclass(frozen=True, slots=True)
class FormGroup:
    """Fields that belong together; `open` where people look first."""

    name: str
    label: str
    fields: list[FormField] = field(default_factory=list)
    open: bool = False


def form_groups(
    kind: str,
    schema: Mapping[str, Any],
    spec: Mapping[str, Any],
    errors: Mapping[str, str],
    groups: Sequence[tuple[str, Sequence[str]]],
) -> list[FormGroup]:
    """The fields of a schema in groups, filled with a spec; what no group names comes last, so that a field that is new
    in the API is in the form too. A name stands for what is below it as well. The first group is open, and any with an
    error."""
    flat = dict(_flat(schema))
    whole = [(group, [one for name in names for one in flat if _within(one, name)]) for group, names in groups]
    named = {one for _, found in whole for one in found}
    rest = [name for name in flat if name not in named]
    required = set(schema.get("required", ()))
    made = []
    for index, (group, names) in enumerate([*whole, ("more", rest)]):
        fields = [
            _field(kind, name, flat[name], _at(spec, name), name in required, errors.get(name, "")) for name in names
        ]
        if fields:
            is_open = index == 0 or any(one.error for one in fields)
            made.append(FormGroup(group, text(f"{kind}.groups.{group}"), fields, is_open))
    return made


async def sent(request: Request) -> dict[str, str]:
    """The fields of a form that was sent; of one that stands there twice the last."""
    body = (await request.body()).decode("utf-8", "replace")
    found = parse_qs(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    return {name: values[-1].replace("\r\n", "\n") for name, values in found.items()}


def spec_of(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """The spec that a form says. An empty field is left out, and has its default; what cannot be read stays as it was
    typed, for the API to refuse by name."""
    spec: dict[str, Any] = {}
    for name, part in _flat(schema):
        value = _read(_kind(part), name, form)
        if value is None or (_kind(part) == "flag" and value == part.get("default", False)):
            continue
        outer, _, inner = name.rpartition(".")
        (spec.setdefault(outer, {}) if outer else spec)[inner] = value
    return spec


def _flat(schema: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """The properties of a schema by dotted name; an object with fields of its own is its fields."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name, whole in schema.get("properties", {}).items():
        part = _plain(whole)
        if part.get("type") == "object" and "properties" in part and not prefix:
            found += _flat(part, f"{name}.")
        else:
            found.append((prefix + name, part))
    return found


def _plain(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without its null: a field that is left empty is that."""
    kinds = [one for one in part.get("anyOf", ()) if one.get("type") != "null"]
    return {**part, **kinds[0]} if len(kinds) == 1 else part


def _kind(part: Mapping[str, Any]) -> FieldKind:
    if "enum" in part:
        return "choice"
    kind = part.get("type")
    if kind == "boolean":
        return "flag"
    if kind in ("number", "integer"):
        return "number" if kind == "number" else "whole"
    if kind == "array":
        if len(part.get("prefixItems", ())) == 2:
            return "pair"
        return "list" if part.get("items", {}).get("type") == "string" else "json"
    return "text" if kind == "string" else "json"


def _field(kind: str, name: str, part: Mapping[str, Any], value: object, required: bool, error: str) -> FormField:
    said = f"{kind}.fields.{name.replace('.', '_')}"
    label = text(f"{said}.label") if has_text(f"{said}.label") else _words(name)
    explained = text(f"{said}.help") if has_text(f"{said}.help") else str(part.get("description", ""))
    how = "long" if name == "question" else _kind(part)
    return FormField(
        name,
        how,
        label,
        explained,
        _shown_pair(value) if how == "pair" else _shown(how, value, part),
        _shown(how, part.get("default"), part),
        tuple(str(one) for one in part.get("enum", ())),
        part.get("minimum", part.get("exclusiveMinimum")),
        part.get("maximum"),
        required,
        error,
    )


def _within(name: str, group: str) -> bool:
    """True if a field is the named one, or a part of it."""
    return name == group or name.startswith(f"{group}.")


def _words(name: str) -> str:
    """A label for a field that has no text yet: its name in words, a unit at its end as such."""
    words, _, unit = name.replace(".", " ").rpartition("_")
    unit = {"s": "s", "fps": "pictures/s", "px": "px"}.get(unit, "") if words else ""
    label = (words if unit else name).replace("_", " ").replace(".", " ").capitalize()
    return f"{label} ({unit})" if unit else label


def _shown(kind: FieldKind, value: object, part: Mapping[str, Any]) -> str:
    if kind == "flag":
        return "yes" if (value if value is not None else part.get("default")) else ""
    if value is None:
        return ""
    if kind == "list" and isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if kind in ("json", "pair") and not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return str(value)


def _shown_pair(value: object) -> tuple[str, str]:
    return (str(value[0]), str(value[1])) if isinstance(value, list | tuple) and len(value) == 2 else ("", "")


def _read(kind: FieldKind, name: str, form: Mapping[str, str]) -> Any:  # noqa: ANN401 - a value of JSON
    if kind == "flag":
        return None if f"{name}.there" not in form else form.get(name) == "yes"
    if kind == "pair":
        both = [form.get(f"{name}.{place}", "").strip() for place in "01"]
        return [_number("whole", one) for one in both] if any(both) else None
    value = form.get(name, "").strip()
    if not value:
        return None
    if kind in ("number", "whole"):
        return _number(kind, value)
    if kind == "list":
        return [part.strip() for part in value.replace("\n", ",").split(",") if part.strip()]
    if kind == "json":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _number(kind: FieldKind, value: str) -> float | int | str:
    try:
        return int(value) if kind == "whole" else float(value.replace(",", "."))
    except ValueError:
        return value


def _at(spec: Mapping[str, Any], name: str) -> object:
    outer, _, inner = name.rpartition(".")
    within = spec.get(outer, {}) if outer else spec
    return within.get(inner) if isinstance(within, Mapping) else None
