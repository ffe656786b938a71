"""Validates documents: NDJSON lines of {"schema": FILE, "document": ...} on stdin, `true` or `false` and why on stdout."""

import json
import sys

from jsonschema import Draft7Validator

validators = {}
for line in sys.stdin:
    asked = json.loads(line)
    file = asked["schema"]
    if file not in validators:
        with open(file, encoding="utf-8") as opened:
            schema = json.load(opened)
        Draft7Validator.check_schema(schema)
        validators[file] = Draft7Validator(schema)
    errors = [f"{error.json_path}: {error.message}" for error in validators[file].iter_errors(asked["document"])]
    print(json.dumps(errors), flush=True)
