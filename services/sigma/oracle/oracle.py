"""Answers which events a Sigma rule matches, by pySigma and SQLite.

Reads one JSON object a line, {"rule": YAML, "events": [object, ...]}, and
writes one a line: {"matches": [index, ...]} or {"error": text}.
"""

import json
import re
import sqlite3
import sys

from sigma.backends.sqlite import sqliteBackend
from sigma.collection import SigmaCollection

FULLTEXT = "every_value"


def regexp(pattern, value):
    return value is not None and re.search(pattern, str(value)) is not None


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def flatten(event, prefix=""):
    for key, value in event.items():
        if isinstance(value, dict):
            yield from flatten(value, prefix + key + ".")
        else:
            yield prefix + key, text(value) if isinstance(value, bool) else value


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def answer(case):
    backend = sqliteBackend(collate_nocase=True, fulltext_field=FULLTEXT)
    rules = SigmaCollection.from_yaml(case["rule"])
    queries = backend.convert(rules)
    events = [dict(flatten(e)) for e in case["events"]]
    columns = set(backend.required_fields(rules.rules[0])) - {FULLTEXT}
    for event in events:
        columns |= event.keys()
    columns = sorted(columns)
    db = sqlite3.connect(":memory:")
    db.create_function("regexp", 2, regexp, deterministic=True)
    db.execute("CREATE TABLE logs (number INTEGER PRIMARY KEY, %s)" % ", ".join(quoted(c) for c in columns + [FULLTEXT]))
    for number, event in enumerate(events):
        words = "\n".join(text(v) for v in event.values() if v is not None)
        values = [number] + [event.get(c) for c in columns] + [words]
        db.execute("INSERT INTO logs VALUES (%s)" % ",".join("?" * len(values)), values)
    found = set()
    for query in queries:
        found |= {row[0] for row in db.execute(query.replace("SELECT *", "SELECT number", 1))}
    db.close()
    return {"matches": sorted(found)}


for line in sys.stdin:
    try:
        result = answer(json.loads(line))
    except Exception as error:  # the test decides which errors are right
        result = {"error": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(result), flush=True)
