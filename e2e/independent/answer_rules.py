"""What every answer must be, whatever was asked, and where violations are kept. From DESIGN §6 and CONTRACT, "HTTP".

It sends nothing.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from http_client import Answer, Request
from openapi import PROBLEM, Operation

CODE = re.compile(r"[A-Z][A-Z0-9_]*")
# Words of the inside that no client should ever read.
INSIDE = re.compile(rb"panick|sqlx|postgres|rdkafka|serde|actix|\.rs:|stack backtrace|SELECT |INSERT ", re.IGNORECASE)
# What a field must be, or what is the matter with its being there.
TOLD = re.compile(r"must (be|have|not)\b|is missing$|is not a known |is there more than once$|is in the order|is not in the catalogue")
BODY_SHOWN_BYTES = 200


@dataclass
class Report:
    """Violations, and what was asked."""

    violations: list[dict] = field(default_factory=list)
    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))

    def violation(self, name: str, label: str, what: str, request: Request | None = None, answer: Answer | None = None):
        entry = {"operation": name, "case": label, "violation": what}
        if request is not None:
            body = (request.body or b"")[:BODY_SHOWN_BYTES].decode("utf-8", "backslashreplace")
            entry["request"] = f"{request.method} {request.url[:BODY_SHOWN_BYTES]} {body}".rstrip()
        if answer is not None:
            shown = answer.raw[: 2 * BODY_SHOWN_BYTES].decode("utf-8", "backslashreplace")
            entry["answer"] = f"{answer.status} {answer.media_type} {shown}"
        self.violations.append(entry)

    def table(self) -> str:
        rows = [("operation", "requests", "by status")]
        for name, statuses in sorted(self.counts.items()):
            shown = "  ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
            rows.append((name, str(sum(statuses.values())), shown))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return "\n".join(f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]}" for row in rows)

    def as_json(self) -> str:
        return json.dumps({"requests": self.counts, "violations": self.violations})


def wrong_with(answer: Answer, operation: Operation | None, method: str) -> list[str]:
    """Everything that no answer may be. `operation`: its document is held against the answer."""
    found = []
    if answer.status >= 500:
        found.append(f"status {answer.status}")
    if not answer.headers.get("X-Request-Id"):
        found.append("no X-Request-Id")
    if INSIDE.search(answer.raw):
        found.append("it tells of the inside")
    if answer.status >= 400:
        found += wrong_with_problem(answer, method)
    if operation is not None and answer.status < 500:
        wrong = operation.undocumented(answer.status, answer.media_type, answer.body)
        found += [wrong] if wrong else []
    return found


def wrong_with_problem(answer: Answer, method: str) -> list[str]:
    found = []
    if answer.media_type != PROBLEM:
        found.append(f"an error of media type {answer.media_type!r}")
    for status, header in ((401, "WWW-Authenticate"), (405, "Allow"), (503, "Retry-After")):
        if answer.status == status and not answer.headers.get(header):
            found.append(f"{status} without {header}")
    if method == "HEAD":
        return found
    problem = answer.body
    if not isinstance(problem, dict):
        return [*found, "an error without a problem document"]
    for name in ("type", "title", "detail", "code"):
        if not isinstance(problem.get(name), str) or not problem[name].strip():
            found.append(f"the problem has no {name}")
    if problem.get("status") != answer.status:
        found.append(f"the problem's status is {problem.get('status')!r}")
    code = str(problem.get("code"))
    if not CODE.fullmatch(code):
        found.append(f"the code {code!r} is no code")
    if problem.get("type") != f"/problems/{code.lower().replace('_', '-')}":
        found.append(f"the type {problem.get('type')!r} is not that of {code}")
    for error in problem.get("errors", []):
        if not isinstance(error.get("pointer"), str) or not re.fullmatch(r"(/([^~/]|~[01])*)*", error["pointer"], re.DOTALL):
            found.append(f"{error.get('pointer')!r} is no RFC 6901 pointer")
        if not TOLD.match(str(error.get("detail"))):
            found.append(f"{error.get('pointer')!r} is not told what it must be: {error.get('detail')!r}")
    return found


def names_field(answer: Answer, pointer: str) -> str | None:
    """Why a problem does not name this field; None when it does."""
    named = [error.get("pointer") for error in answer["errors"] or []]
    return None if pointer in named else f"the problem names {named[:5]}, not {pointer[:80]!r}"
