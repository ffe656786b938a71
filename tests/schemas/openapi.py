"""Holds answers against the document that describes them: python3 openapi.py DOCUMENT < LINES, each {"path": TEMPLATE, "method": M, "answer": A}.

Beside what JSON Schema says, an answer has no field that is not described."""
import json, sys
from jsonschema import Draft202012Validator

document = json.load(open(sys.argv[1]))


def resolved(schema):
    while "$ref" in schema:
        at = document
        for part in schema["$ref"].lstrip("#/").split("/"):
            at = at[part.replace("~1", "/").replace("~0", "~")]
        schema = at
    return schema


def strangers(schema, value, where):
    schema = resolved(schema)
    for other in schema.get("oneOf", []) + schema.get("anyOf", []) + schema.get("allOf", []):
        # Which of them it is, the validator says; a field that any of them has is described.
        schema = {**resolved(other), **schema, "properties": {**resolved(other).get("properties", {}), **schema.get("properties", {})}}
    if isinstance(value, dict) and schema.get("properties"):
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from strangers(schema["properties"][name], inner, f"{where}/{name}")
            elif not schema.get("additionalProperties"):
                yield f"{where}/{name} is not described"
    if isinstance(value, list) and "items" in schema:
        for inner in value:
            yield from strangers(schema["items"], inner, f"{where}[]")


for line in sys.stdin:
    found = json.loads(line)
    answers = document["paths"][found["path"]][found["method"]]["responses"]
    schema = resolved(answers["200"])["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": document["components"]})
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found["answer"])]
    for problem in problems + sorted(set(strangers(schema, found["answer"], "$"))):
        print(f"{found['method']} {found['path']}: {problem}")
