"""Every way in which a request body can be wrong, made from its schema and one right body.

Each wrong body says which statuses may answer it and which field the problem must name (RFC 6901). It sends nothing.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from openapi import Operation, plain

BODY_BYTES_MAX = 64 * 1024
BAD_TEXTS = [
    "", " ", "x", "nonsense", "-1", "0", "01", "+1", "1.0", " 1", "1 ", "1\n", "１", "0x10", "1e3", "NULL", "null", "usd", "US",
    "USDX", "U$D", "é", "a b", "x" * 70, "x" * 300, "x" * 20_000, "\u0000", "1\u0000", "ok\u0007", "\u202eright", "😀", "' OR 1=1 --",
    "../../etc/passwd", "%s%n", "${jndi:x}", "<script>", "a@b@c", "ann@", "@example.test", "+49", "++4915112345678", "2026-02-30T00:00:00Z",
    "2026-01-01", "9223372036854775808", "-9223372036854775809", "99999999999999999999",
]  # fmt: skip
HUGE = (2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**30, -(10**30))


@dataclass(frozen=True)
class Wrong:
    """A body, what may answer it, and the field that the problem names (None: it need not name one)."""

    label: str
    body: bytes
    statuses: frozenset[int]
    pointer: str | None = None


class Raw:
    """JSON text that no Python value gives."""

    def __init__(self, text: str):
        self.text = text


def encode(value) -> bytes:
    """JSON with every `Raw` put in as it is."""
    raws: list[str] = []

    def keep(raw):
        raws.append(raw.text)
        return f"\u0001raw{len(raws) - 1}\u0001"

    text = json.dumps(value, default=keep)
    for number, raw in enumerate(raws):
        text = text.replace(json.dumps(f"\u0001raw{number}\u0001"), raw)
    return text.encode()


def pointer_of(path: tuple) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def changed(right, path: tuple, value):
    """The right body with another value at this path."""
    if not path:
        return value
    body = copy.deepcopy(right)
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return body


def at(body, path: tuple):
    for step in path:
        body = body[step]
    return body


def wrong_bodies(operation: Operation, right) -> Iterator[Wrong]:
    """All of them; `right` has every field of the schema."""
    yield from wrong_texts(encode(right))
    for path, schema, nullable in places(operation, right):
        yield from wrong_values(right, path, schema, nullable)


def places(operation: Operation, right) -> Iterator[tuple[tuple, dict, bool]]:
    """Every place of the body that the schema describes."""
    todo = [((), operation.body)]
    while todo:
        path, schema = todo.pop(0)
        schema, nullable = plain(schema, operation.document)
        yield path, schema, nullable
        if schema.get("type") == "object":
            todo += [(path + (name,), inner) for name, inner in schema.get("properties", {}).items()]
        elif schema.get("type") == "array":
            todo += [(path + (index,), schema["items"]) for index in range(len(at(right, path)))]


def field_is(right, path: tuple, label: str, value, statuses=frozenset({422})) -> Wrong:
    return Wrong(f"{pointer_of(path) or 'body'} {label}", encode(changed(right, path, value)), statuses, pointer_of(path))


def wrong_values(right, path: tuple, schema: dict, nullable: bool) -> Iterator[Wrong]:
    kind = schema["type"]
    others = {"string": "text", "integer": 7, "boolean": True, "array": [], "object": {}, "number": 1.5}
    for other, value in others.items():
        if other != kind:
            yield field_is(right, path, f"is of type {other}", value)
    if not nullable:
        yield field_is(right, path, "is null", None)
    match kind:
        case "object":
            yield from wrong_objects(right, path, schema)
        case "array":
            yield from wrong_lists(right, path, schema)
        case "string":
            yield from wrong_strings(right, path, schema)
        case "integer":
            yield from wrong_integers(right, path, schema)


def wrong_objects(right, path: tuple, schema: dict) -> Iterator[Wrong]:
    inside = at(right, path)
    for name in schema.get("required", []):
        less = {key: value for key, value in inside.items() if key != name}
        body = encode(changed(right, path, less))
        yield Wrong(f"{pointer_of(path + (name,))} is missing", body, frozenset({422}), pointer_of(path + (name,)))
    for name in ("surplus", "", "a/b~c", "__proto__", "ORDER_ID", "x" * 1000, "é", "null\u0000"):
        for value in (1, None, {"deep": [{}]}):
            pointer = pointer_of(path + (name,))
            body = encode(changed(right, path, {**inside, name: value}))
            yield Wrong(f"{pointer[:40]} is unknown", body, frozenset({422}), pointer)
    for name in inside:
        again = f"{encode(inside)[:-1].decode()},{json.dumps(name)}:{encode(inside[name]).decode()}}}"
        pointer = pointer_of(path + (name,))
        yield Wrong(f"{pointer} is there twice", encode(changed(right, path, Raw(again))), frozenset({422}), pointer)
    deep = {**inside, "deep": Raw("[" * 5000 + "]" * 5000)}
    yield Wrong("unknown and deep", encode(changed(right, path, deep)), frozenset({400, 422}))


def wrong_lists(right, path: tuple, schema: dict) -> Iterator[Wrong]:
    inside = at(right, path)
    if schema.get("minItems", 0) > 0:
        yield field_is(right, path, "is empty", [])
    if "maxItems" in schema:
        yield field_is(right, path, "is too long", [inside[0]] * (schema["maxItems"] + 1))
    for label, item in (("null", None), ("a list", []), ("a number", 1), ("a text", "x")):
        pointer = pointer_of(path + (len(inside),))
        body = encode(changed(right, path, [*inside, item]))
        yield Wrong(f"{pointer} is {label}", body, frozenset({422}), pointer)
    yield field_is(right, path, "holds one item, as an object", {"0": inside[0]})


def wrong_strings(right, path: tuple, schema: dict) -> Iterator[Wrong]:
    for text in BAD_TEXTS:
        if not fits(text, schema):
            yield field_is(right, path, f"is {text[:20]!r}", text)
    if "maxLength" in schema:
        yield field_is(right, path, "is a character too long", "x" * (schema["maxLength"] + 1))
    for escape in (r"\ud800", r"\udc00", r"x\ud83dx"):
        yield field_is(right, path, f"is the lone surrogate {escape}", Raw(f'"{escape}"'))
    yield Wrong("no UTF-8 inside", encode(changed(right, path, "@")).replace(b'"@"', b'"\xff\xfe"'), frozenset({400, 422}))
    yield Wrong("overlong UTF-8", encode(changed(right, path, "@")).replace(b'"@"', b'"\xc0\x80"'), frozenset({400, 422}))
    for raw in ('"\n"', '"\0"', '"\\x"', '"\\u12"', '"open', "'x'", "undefined"):
        yield Wrong(f"{pointer_of(path)} as {raw!r}", encode(changed(right, path, Raw(raw))), frozenset({400}))


def fits(text: str, schema: dict) -> bool:
    """Whether the document allows this text, as far as it says."""
    if "enum" in schema:
        return text in schema["enum"]
    if schema.get("format") == "date-time" or schema.get("format") == "email":
        return False
    if schema.get("format") == "int64":
        return re.fullmatch(r"[1-9][0-9]{0,18}", text, re.ASCII) is not None and int(text) < 2**63
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 10**9):
        return False
    # The document's patterns are anchored; `$` must not match before a line feed.
    pattern = schema.get("pattern", "").replace("$", r"\Z")
    return re.search(pattern, text, re.ASCII) is not None


def wrong_integers(right, path: tuple, schema: dict) -> Iterator[Wrong]:
    low, high = schema.get("minimum"), schema.get("maximum")
    numbers = {0, -1, *HUGE}
    numbers |= {low - 1} if low is not None else set()
    numbers |= {high + 1} if high is not None else set()
    for number in sorted(numbers):
        out_of_range = (low is not None and number < low) or (high is not None and number > high)
        if out_of_range or not -(2**63) <= number < 2**63:
            yield field_is(right, path, f"is {number}", number)
    for text in ("1.5", "-0.5", "1e400", "1e-400", '"1"', '"0x1"'):
        yield field_is(right, path, f"is {text}", Raw(text))
    for text in ("NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x1", "1_000", "--1", "1e"):
        yield Wrong(f"{pointer_of(path)} as {text}", encode(changed(right, path, Raw(text))), frozenset({400}))


def wrong_texts(right: bytes) -> Iterator[Wrong]:
    """What is no JSON at all, or too much of it."""
    no_json = frozenset({400})
    for end in sorted({0, 1, 2, len(right) // 4, len(right) // 2, len(right) - 2, len(right) - 1}):
        yield Wrong(f"cut to {end} bytes", right[:end], no_json)
    texts = {
        "two documents": right + right,
        "a comma behind": right[:-1] + b",}",
        "a comma after": right + b",",
        "a comment": b"/* x */" + right,
        "a byte order mark": b"\xef\xbb\xbf" + right,
        "UTF-16": right.decode().encode("utf-16"),
        "UTF-32": right.decode().encode("utf-32"),
        "zero bytes": b"\0" * 10,
        "a zero byte behind": right + b"\0",
        "no UTF-8": b"\xff\xfe\xfd",
        "single quotes": b"{'a':1}",
        "bare names": b"{a:1}",
        "XML": b"<order/>",
        "a form": b"lines=1&payment_method=pm_ok",
        "NaN": b"NaN",
        "only blanks": b" \n\t ",
    }
    for label, body in texts.items():
        yield Wrong(label, body, no_json)
    for depth in (200, 30_000):
        yield Wrong(f"{depth} lists", b"[" * depth + b"]" * depth, frozenset({400, 422}))
        yield Wrong(f"{depth} open lists", b"[" * depth, no_json)
    yield Wrong("5000 objects", b'{"a":' * 5000 + b"1" + b"}" * 5000, frozenset({400, 422}))
    for label, body in (("a number", b"7"), ("a text", b'"x"'), ("true", b"true"), ("a list of it", b"[" + right + b"]")):
        yield Wrong(f"it is {label}", body, frozenset({422}), "")
    full = b'{"surplus":1}' + b" " * (BODY_BYTES_MAX - 13)
    yield Wrong("exactly 64 KiB", full, frozenset({422}), "/surplus")
    yield Wrong("a byte more than 64 KiB", full + b" ", frozenset({413}))
    yield Wrong("1 MiB", full * 16, frozenset({413}))
