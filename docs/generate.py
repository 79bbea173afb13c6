"""The pages of the reference that come from the code: commands and recipes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from onnxprune.cli import app
from onnxprune.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_pages(folder: Path) -> None:
    """Write the generated pages under ``reference/``, those that changed."""
    for name, text in (("commands.md", commands_page()), ("recipe.md", recipe_page())):
        path = folder / "reference" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def commands_page() -> str:
    """All commands with their arguments and options."""
    group: Any = typer.main.get_command(app)
    names = group.list_commands(None)
    sections = [_command(name, group.commands[name]) for name in names]
    intro = (
        "Exit status: 0 done and every target met; 1 done, but a target or check was not met; 2 the request or an "
        "input was wrong, in one sentence on standard error; 130 interrupted.\n"
    )
    general = ["## Without a command", "", *_options(group)]
    return "\n".join(["# Commands", "", intro, *general, "", *sections])


def recipe_page() -> str:
    """All fields of a recipe."""
    lines = [
        "# Recipes",
        "",
        "A recipe is a YAML file with any of these fields; `onnxprune recipe` prints one with all of them, and",
        "`onnxprune recipe --schema` the JSON schema for editors (also in the repository as `docs/recipe.schema.json`).",
        "`--set section.field=value` puts a value over a recipe's, `--set rules.0.sparsity=0.8` one into a list.",
        "How rules work: [rules for single layers](../howto/rules.md).",
        "",
        "| field | type | default |",
        "| --- | --- | --- |",
    ]
    schema = Recipe.model_json_schema()
    lines += _rows(schema, schema["$defs"])
    lines += [
        "",
        "## Steps",
        "",
        "Each entry of `steps` names its `step` and may set these fields; see [compress step by step](../howto/steps.md).",
        "What a prune, encode or estimate step leaves open is as the section of that name above has it.",
    ]
    for name, ref in schema["properties"]["steps"]["items"]["discriminator"]["mapping"].items():
        step = schema["$defs"][ref.rsplit("/", 1)[1]]
        rows = _rows(step, schema["$defs"], leave_out="step")
        table = ["", "| field | type | default |", "| --- | --- | --- |", *rows] if rows else []
        lines += ["", f"### {name}", "", " ".join(step["description"].split()), *table]
    return "\n".join(lines) + "\n"


def _rows(
    section: dict[str, Any], definitions: dict[str, Any], leave_out: str | None = None
) -> list[str]:
    return [
        f"| `{name}` | {kind} | `{default}` |"
        for name, kind, default in _fields(section, definitions)
        if name != leave_out
    ]


def _command(name: str, command: Any) -> str:
    about, _, example = (command.help or "").partition("Example:")
    lines = [f"## {name}", "", about.strip(), "", "```text", example.strip(), "```", ""]
    return "\n".join([*lines, *_options(command), ""])


def _options(command: Any) -> list[str]:
    """Arguments and options as a table."""
    lines = ["| | | |", "| --- | --- | --- |"]
    for parameter in _own(command):
        names = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{(parameter.metavar or parameter.name).upper()}`"
        needed = "required" if parameter.required else ""
        text = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
        lines.append(f"| {names} | {text} | {needed} |")
    return lines


def _own(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.name != "help"]


def _fields(
    section: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Name, type and default of every field of a JSON schema, sections opened."""
    for name, field in section["properties"].items():
        if "$ref" in field:
            inner = definitions[field["$ref"].rsplit("/", 1)[1]]
            yield from _fields(inner, definitions, f"{prefix}{name}.")
        elif optional := [one for one in field.get("anyOf", ()) if "$ref" in one]:
            inner = definitions[optional[0]["$ref"].rsplit("/", 1)[1]]
            yield from _fields(inner, definitions, f"{prefix}{name}.")
        elif "$ref" in field.get("items", {}):
            inner = definitions[field["items"]["$ref"].rsplit("/", 1)[1]]
            yield from _fields(inner, definitions, f"{prefix}{name}[].")
        else:
            yield f"{prefix}{name}", _kind(field, definitions), json.dumps(field.get("default"))


def _kind(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in field:
        return _kind(definitions[field["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in field:
        return " or ".join(_kind(choice, definitions) for choice in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array" and "items" in field:
        return f"list of {_kind(field['items'], definitions)}"
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {field[key]:g}" for key, word in words.items() if key in field]
    return " ".join([str(field.get("type", "object")), *bounds])
