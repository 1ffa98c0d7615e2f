#!/usr/bin/env bash
# PyPI cloudevents 2.2.0 (the official Python SDK): booleans leave in Python's spelling, and JSON leaves unlabelled.
#
# Guess: binary mode writes JSON data as JSON, and a boolean attribute as `true` or `false`, as the specification's
# type system says.
# Seen (Python 3.11, 2026-11-29): data False is the body `False`, which is not JSON; the attribute is `ce-flag: True`;
# a dictionary is written as JSON without a Content-Type header; structured mode is right in all three.
# What follows: GatheRing reads a boolean attribute in any case, and takes a body without Content-Type that parses as
# JSON for JSON.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cloudevents==2.2.0
cat > seen.py <<'PY'
from cloudevents.core.bindings.http import from_http, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

json = JSONFormat()


def event(data, **more):
    return CloudEvent({"id": "1", "source": "/s", "type": "t", "specversion": "1.0", **more}, data)


binary = to_binary(event(False), json)
print("body:", binary.body)
print("read back:", repr(from_http(binary, json).get_data()))
print("attribute:", to_binary(event({}, flag=True), json).headers["ce-flag"])
print("content type:", to_binary(event({"a": 1}), json).headers.get("content-type"))
structured = to_structured(event(False, flag=True), json)
print("structured:", b'"data": false' in structured.body, b'"flag": true' in structured.body)
PY
diff <(venv/bin/python seen.py) - <<'SEEN' && echo "as recorded"
body: b'False'
read back: 'False'
attribute: True
content type: None
structured: True True
SEEN
