"""The text of recipes: YAML as people write it, fields by dotted name, and what is wrong, said by field."""

from __future__ import annotations

import difflib
import re
import types
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import yaml

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import BaseModel, ValidationError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: in 1.1, ``2:4`` is the number 124 in base 60, and ``1e-3`` is a text."""


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(
        _tag, re.compile(rf"^(?:{_pattern.pattern})$"), list("-+.0123456789")
    )


SHAPES = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of fields",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
}
"""What pydantic calls by Python's names, in those of YAML."""


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        yaml.YAMLError, RecursionError: when it is none.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file.

    Raises:
        RecipeError: when it cannot be read or is no mapping.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read recipe '{path}': {error}"
        raise RecipeError(msg) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        msg = f"recipe '{path}' is not valid YAML: {reason}"
        raise RecipeError(msg) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        msg = f"recipe '{path}' must be a mapping of fields, found {type(content).__name__}"
        raise RecipeError(msg)
    return content


def put(fields: dict[str, Any], dotted: str, value: Any, label: str) -> None:
    """Set the field of a dotted name, ``search.trials`` or ``rules.0.sparsity``.

    A key that has dots itself, the name of a weight, is taken as one where it is there.

    Raises:
        RecipeError: where the name leads through what is no section, or past the end of a list.
    """
    left = dotted.split(".")
    place: Any = fields
    while True:
        section = _key(place, left)
        left = left[section.count(".") + 1 :]
        if not left:
            break
        if isinstance(place, list):
            place = place[_index(place, section, dotted, label)]
        else:
            place = place.setdefault(section, {})
        if not isinstance(place, (dict, list)):
            msg = f"{label}: {section} must be a mapping of fields, found {place!r}"
            raise RecipeError(msg)
    if isinstance(place, list):
        place[_index(place, section, dotted, label)] = value
    else:
        place[section] = value


def _key(place: Any, parts: list[str]) -> str:
    """The longest beginning of a dotted name that is a key, else its first part."""
    names = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    known = place if isinstance(place, dict) else {}
    return next((name for name in names if name in known), parts[0])


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong: where, what, and what was found."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    at = f"{where}: " if where else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1], model)
        return f"{at}there is no such field; {_hint(str(first['loc'][-1]), known)}"
    if first["type"] == "union_tag_invalid":
        known = re.findall(r"'(\w+)'", first["ctx"]["expected_tags"])
        return f"{at}there is no step '{first['ctx']['tag']}'; {_hint(first['ctx']['tag'], known)}"
    if first["type"] == "union_tag_not_found":
        return f"{at}say which step it is, for instance step: prune"
    reason = SHAPES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict) else f" (found {first['input']!r})"
    return f"{at}{reason[:1].lower()}{reason[1:]}{found}"


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _index(items: list[Any], text: str, dotted: str, label: str) -> int:
    if not text.isdecimal() or int(text) >= len(items):
        count = f"0 to {len(items) - 1}" if items else "none"
        msg = f"{label}: {dotted}: '{text}' is no place in the list; it has {count}"
        raise RecipeError(msg)
    return int(text)


def _fields_at(location: tuple[int | str, ...], model: Any) -> list[str]:
    """The fields of the section, or of the step, that a location leads to."""
    for part in location:
        if isinstance(part, str) and hasattr(model, "model_fields"):
            model = _one_of(model.model_fields[part].annotation)
        elif isinstance(part, str):  # the tag of a union: one of its members
            model = next(one for one in get_args(model) if part in _tags(one))
        else:
            model = _one_of(get_args(model)[0])
    return list(getattr(model, "model_fields", {}))


def _one_of(annotation: Any) -> Any:
    """A type without what surrounds it: its metadata, or that it may be None."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [one for one in get_args(annotation) if one is not types.NoneType]
    optional = types.NoneType in get_args(annotation) and len(members) == 1
    return _one_of(members[0]) if optional else annotation


def _tags(model: Any) -> tuple[str, ...]:
    """Names by which a union tells this member from the others."""
    field = getattr(model, "model_fields", {}).get("step")
    return () if field is None else get_args(field.annotation)
