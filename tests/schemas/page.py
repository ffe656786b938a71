"""Writes the reference page of a JSON Schema: `page.py SCHEMA`, Markdown on stdout. Tables come in the schema's order."""

import json
import sys

FORMS = {
    "duration": "duration",
    "bytes": "size",
    "rate": "rate",
    "name": "name",
    "label": "name",
    "filter": "topic filter",
    "topic": "topic",
    "address": "address",
    "device": "text",
}


def kind(schema):
    """What a value is, for people."""
    reference = schema.get("$ref") or next((part["$ref"] for part in schema.get("allOf", [])), None)
    if reference:
        return FORMS[reference.rsplit("/", 1)[1]]
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(word)}`" for word in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    if schema.get("type") in ("integer", "number"):
        name = "whole number" if schema["type"] == "integer" else "number"
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None and high < 2**40:
            return f"{name}, {low} to {high}"
        return f"{name}, at least {low}" if low is not None else name
    names = {"string": "text", "boolean": "true or false", "object": "table", "number": "number"}
    kinds = schema.get("type", "any value")
    return " or ".join(names.get(name, name) for name in ([kinds] if isinstance(kinds, str) else kinds))


def tables(schema):
    """The tables below a schema: (heading's ending, is a list, schema)."""
    for key, value in schema.get("properties", {}).items():
        items = value.get("items", {})
        if "properties" in value:
            yield key, False, value
        elif "properties" in items:
            yield key, True, {**items, "description": value.get("description", "")}
        elif is_table(value):
            yield f"{key}.NAME", False, {**value["additionalProperties"], "description": value["description"]}


def is_table(value):
    free = value.get("additionalProperties")
    return "properties" in value or "properties" in value.get("items", {}) or (isinstance(free, dict) and "properties" in free)


def write(schema, path, level, lines):
    required = schema.get("required", [])
    keys = [(key, value) for key, value in schema.get("properties", {}).items() if not is_table(value) or value.get("type") == ["array", "string"]]
    if keys:
        lines += ["| key | | default | |", "| --- | --- | --- | --- |"]
        for key, value in keys:
            default = f"`{json.dumps(value['default'], ensure_ascii=False)}`" if "default" in value else ""
            if key in required:
                default = "must be given"
            what = "text" if value.get("type") == ["array", "string"] else kind(value)
            lines.append(f"| `{key}` | {what} | {default} | {value.get('description', '')} |")
        lines.append("")
    for key, many, below in tables(schema):
        name = f"{path}.{key}" if path else key
        only_tables = all(is_table(value) for value in below["properties"].values())
        heading = name if only_tables else f"[[{name}]]" if many else f"[{name}]"
        lines += [f"{'#' * level} {heading}", "", f"{below['description']}.", ""]
        write(below, name, min(level + 1, 4), lines)


def main():
    with open(sys.argv[1], encoding="utf-8") as opened:
        schema = json.load(opened)
    what = {"holm.toml": "manifest", "agent.toml": "agent"}[schema["title"]]
    lines = [
        f"# {schema['title']}",
        "",
        schema["description"],
        "",
        "A key that is not known is an error, and all errors are listed at once. Made from the JSON Schema, which",
        f"`holm schema {what}` prints: with it in its first line (`#:schema FILE`), an editor completes and checks the file as you type.",
        "",
        'A duration is a number and `ms`, `s`, `m`, `h` or `d`, such as `"500ms"`; a size a whole number and `B`, `KiB`, `MiB` or `GiB`; a rate a',
        "whole number per `s`, `m` or `h`, such as `\"50/s\"`. A name is made of a-z, 0-9 and `-`.",
        "",
    ]
    write(schema, "", 2, lines)
    print("\n".join(lines).rstrip())


main()
