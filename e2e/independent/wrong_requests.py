"""Every way in which a request can be wrong beside its body: tokens, roles, headers, paths, queries, methods.

Like the bodies they are made from the OpenAPI documents; the expectations are DESIGN §6's and CONTRACT's.
"""

import gzip
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from http_client import Request, Tokens, gateway_signature
from openapi import METHODS, Operation, plain

BAD_IDS = [
    "abc", "0", "-1", "01", "+1", "1.5", "1e3", "%20", "1%20", "%001", "1%00", "%ff", "%c3%a9", "%EF%BC%91", "1;2", "1,2",
    "9223372036854775808", "99999999999999999999", "1" * 5000, "null", "%27%20OR%201=1", "..%2f1", "%2e%2e", "1%2F2", "%25",
]  # fmt: skip
BAD_SUBJECTS = ["%20", "ann%20x", "%00", "%ff", "%c3%a9", "x" * 65, "x" * 5000, "ann%2fbob", "%2e%2e%2fann", "ann@x", "ann;x"]
BAD_QUERIES = {
    "integer": ["", "x", "0", "-1", "+5", "1.5", "1e1", "201", "9223372036854775808", "1" * 500, "%00", "null", "0x10", "5%20"],
    "string": ["nonsense", "!", "bm9uZQ", "%00", "x" * 3000, "confirmed", "-1", "0", "1.5", "%27", "9223372036854775808"],
}
UNSUPPORTED_TYPES = [
    None, "", "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "/",
    "application/jsonx", "application/json-patch+json", "application/problem+json", "application/json; charset=latin1", "json",
]  # fmt: skip
BAD_KEYS = {
    "missing": None, "empty": "", "short": "1234567", "long": "k" * 256, "very long": "k" * 6000, "with a space": "key with space",
    "not ASCII": "schlüssel-12", "with a tab": "key\twith-tab", "quoted and empty": '""', "quoted and short": '"1234567"',
    "quoted and long": '"' + "k" * 256 + '"',
}  # fmt: skip
PREFERENCES = ["wait", "wait=", "wait=x", "wait=-1", "wait=0", "wait=1.5", "wait=99999999999999999999", "respond-async", ";", "é", ","]


@dataclass(frozen=True)
class Case:
    """A request and what may answer it; `documented`: the operation's document speaks of the answer."""

    label: str
    request: Request
    statuses: frozenset[int]
    pointer: str | None = None
    documented: bool = True


@dataclass(frozen=True)
class Aim:
    """An operation with everything that a right request needs. `secret` is set where the gateway signs."""

    operation: Operation
    base: str
    values: dict[str, str]
    role: str
    right: bytes | None
    query: str = ""
    secret: str | None = None


class Maker:
    """Makes requests that are right but for one thing."""

    def __init__(self, tokens: Tokens, sub: str):
        self.tokens, self.sub = tokens, sub
        self.bearers = {role: f"Bearer {tokens.token(sub, role)}" for role in ("customer", "operator")}

    def request(self, aim: Aim, body: bytes | None = None, **headers: str | None) -> Request:
        """`headers` (with _ for -) replace the usual ones; None leaves one out."""
        body = aim.right if body is None else body
        usual: dict[str, str | None] = {}
        if aim.operation.secured:
            usual["authorization"] = self.bearers[aim.role]
        if body is not None:
            usual["content-type"] = "application/json"
        if any(parameter["name"] == "Idempotency-Key" for parameter in aim.operation.named("header")):
            usual["idempotency-key"] = str(uuid.uuid4())
        if aim.secret is not None:
            usual["gateway-signature"] = gateway_signature(aim.secret, body or b"")
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = [(name, value) for name, value in usual.items() if value is not None]
        return Request(aim.operation.method, aim.base + aim.operation.url(aim.values) + aim.query, sent, body)

    def cases(self, aim: Aim) -> Iterator[Case]:
        if aim.operation.secured:
            yield from self.tokens_and_roles(aim)
        if aim.secret is not None:
            yield from self.signatures(aim)
        if aim.right is not None:
            yield from self.bodies_as_such(aim)
        yield from self.headers(aim)
        yield from self.paths(aim)
        yield from self.queries(aim)

    def tokens_and_roles(self, aim: Aim) -> Iterator[Case]:
        for label, value in self.tokens.wrong().items():
            yield Case(label, self.request(aim, authorization=value), frozenset({401}))
        twice = self.request(aim)
        twice.headers.append(("authorization", self.bearers[aim.role]))
        yield Case("two tokens", twice, frozenset({400, 401}))
        # Who may not come in learns nothing about what they sent.
        wrong = self.request(aim, b"{" if aim.right is not None else None, authorization=None, content_type="text/plain")
        yield Case("no token and a wrong body", wrong, frozenset({401}))
        if 403 in map(int, aim.operation.responses):
            other = "customer" if aim.role == "operator" else "operator"
            if "{customer_id}" not in aim.operation.path:
                yield Case(f"as {other}", self.request(aim, authorization=self.bearers[other]), frozenset({403}))

    def signatures(self, aim: Aim) -> Iterator[Case]:
        now, secret, right = int(time.time()), aim.secret, aim.right
        good = gateway_signature(secret, right)
        wrong = {
            "missing": None, "empty": "", "nonsense": "x", "without time": good.split(",")[1], "without tag": good.split(",")[0],
            "old": gateway_signature(secret, right, now - 330), "of the future": gateway_signature(secret, right, now + 330),
            "of another body": gateway_signature(secret, right + b" "), "of another secret": gateway_signature("x" * 32, right),
            "of another scheme": good.replace("v1=", "v0="), "with a moved time": good.replace(f"t={now}", f"t={now + 1}"),
            "negative": good.replace("t=", "t=-"), "huge": good.replace("t=", "t=9999999999999999999"), "cut": good[:-2],
            "no hex": good.split("v1=")[0] + "v1=" + "z" * 64, "empty tag": good.split("v1=")[0] + "v1=",
        }  # fmt: skip
        for label, value in wrong.items():
            yield Case(f"signature {label}", self.request(aim, gateway_signature=value), frozenset({401}))
            yield Case(f"signature {label} of no JSON", self.request(aim, b"{", gateway_signature=value or "t=1,v1=00"), frozenset({401}))

    def bodies_as_such(self, aim: Aim) -> Iterator[Case]:
        for kind in UNSUPPORTED_TYPES:
            yield Case(f"content type {kind}", self.request(aim, content_type=kind), frozenset({415}))
        zipped = self.request(aim, gzip.compress(aim.right), content_encoding="gzip")
        yield Case("compressed", zipped, frozenset({415}))
        yield Case("10 GB declared", self.request(aim, b"{", content_length=str(10**10)), frozenset({413}))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        chunked = self.request(aim, chunk * 3 + b"0\r\n\r\n", transfer_encoding="chunked")
        yield Case("192 KiB in chunks", chunked, frozenset({413, 401} if aim.secret else {413}))
        none = replace(self.request(aim), body=None)
        yield Case("no body", replace(none, headers=[*none.headers, ("content-length", "0")]), frozenset({400, 401}))

    def headers(self, aim: Aim) -> Iterator[Case]:
        names = {parameter["name"] for parameter in aim.operation.named("header")}
        if "Idempotency-Key" in names:
            for label, key in BAD_KEYS.items():
                yield Case(f"key {label}", self.request(aim, idempotency_key=key), frozenset({400}))
            twice = self.request(aim)
            twice.headers.append(("idempotency-key", str(uuid.uuid4())))
            yield Case("two keys", twice, frozenset({400}))
        if "If-Match" in names:
            for version in ("abc", "", '"x"', '"1', "1", 'W/"1"', '"-1"', '"1.0"', '"99999999999999999999"', '"1" "2"'):
                yield Case(f"If-Match {version}", self.request(aim, if_match=version), frozenset({400, 412}))
        if "Prefer" in names:
            # A preference that is not understood is passed over (RFC 7240 §2): the body decides.
            for preference in PREFERENCES if aim.right is not None else ():
                yield Case(f"Prefer {preference}", self.request(aim, b"{}x", prefer=preference), frozenset({400}))
        odd = {"accept": "image/png", "x_request_id": "x" * 500, "traceparent": "nonsense", "cookie": "a=b", "range": "bytes=0-1"}
        for name, value in odd.items():
            if aim.right is not None:
                yield Case(f"{name} {value[:20]}", self.request(aim, b"{", **{name: value}), frozenset({400}))

    def paths(self, aim: Aim) -> Iterator[Case]:
        for parameter in aim.operation.named("path"):
            subject = parameter["name"] == "customer_id"
            for bad in BAD_SUBJECTS if subject else BAD_IDS:
                there = replace(aim, values={**aim.values, parameter["name"]: bad})
                # Somebody else's contacts are forbidden, whatever their name looks like.
                statuses = {403, 404} if subject else {404}
                yield Case(f"{parameter['name']} {bad[:20]}", self.request(there), frozenset(statuses))

    def queries(self, aim: Aim) -> Iterator[Case]:
        known = aim.operation.named("query")
        for parameter in known:
            schema, _ = plain(parameter["schema"], aim.operation.document)
            others = [part for part in aim.query.lstrip("?").split("&") if part and not part.startswith(parameter["name"] + "=")]
            for bad in BAD_QUERIES[schema["type"]]:
                yield self.query(aim, [*others, f"{parameter['name']}={bad}"], parameter["name"])
            yield self.query(aim, [*others, *[f"{parameter['name']}=1"] * 2], parameter["name"])
            if parameter.get("required"):
                yield self.query(aim, others, parameter["name"])
        if known:
            right = [part for part in aim.query.lstrip("?").split("&") if part]
            yield self.query(aim, [*right, "surplus=1"], "surplus")
            yield self.query(aim, [*right, "LIMIT=1"], "LIMIT")
            yield self.query(aim, [*right, "a/b~c=1"], "a~1b~0c")

    def query(self, aim: Aim, parts: list[str], name: str) -> Case:
        query = "?" + "&".join(parts)
        return Case(f"query {query[:40]}", self.request(replace(aim, query=query)), frozenset({422}), f"/{name}")

    def other_methods(self, aim: Aim, taken: set[str]) -> Iterator[Case]:
        for method in [*(method.upper() for method in METHODS), "HEAD", "OPTIONS", "TRACE", "BREW", "get"]:
            if method not in taken:
                wrong = replace(self.request(aim), method=method)
                yield Case(f"method {method}", wrong, frozenset({405}), None, False)

    def nowhere(self, base: str, paths: list[str]) -> Iterator[Case]:
        """Addresses where nothing is."""
        unknown = ["/", "/v1", "/v1/", "/v2/orders", "/nothing", "/v1/nothing", "/.env", "/admin/processors", "/metrics", "/%00"]
        unknown += ["/" + "x" * 9000, "/v1/..%2f..%2fetc", "/%ff", *(f"{path}/" for path in paths), *(f"/{path}" for path in paths)]
        unknown += [path.upper() for path in paths] + [f"{path}/more/and/more" for path in paths]
        for path in unknown:
            request = Request("GET", base + path.replace("{", "").replace("}", ""), [("authorization", self.bearers["operator"])], None)
            yield Case(f"GET {path[:30]}", request, frozenset({404}), None, False)
