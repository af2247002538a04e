"""A service's OpenAPI document, as a client reads it: operations, schemas without references, and whether an answer is
as documented.

It knows nothing of Orderlog but the media type of problems.
"""

import re
from dataclasses import dataclass, field

import jsonschema

PROBLEM = "application/problem+json"
METHODS = ("get", "put", "post", "delete", "patch")


@dataclass
class Operation:
    """One method of one path."""

    service: str
    method: str
    path: str
    parameters: list[dict]
    body: dict | None
    responses: dict[str, dict]
    secured: bool
    document: dict = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def named(self, place: str) -> list[dict]:
        """Its parameters in `path`, `query` or `header`."""
        return [parameter for parameter in self.parameters if parameter["in"] == place]

    def url(self, values: dict[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], self.path)

    def undocumented(self, status: int, media_type: str, body) -> str | None:
        """What is not as documented in an answer; `body` is parsed JSON, None where there is none."""
        response = self.responses.get(str(status))
        if response is None:
            return f"status {status} is not documented"
        content = response.get("content", {})
        if not content:
            return f"status {status} is documented without a body, but has one" if body is not None else None
        if media_type not in content:
            return f"media type {media_type!r} of status {status} is documented as {sorted(content)}"
        error = first_error(content[media_type]["schema"], body, self.document)
        return f"the body of status {status} is not as documented: {error}" if error else None


def operations(service: str, document: dict) -> list[Operation]:
    """Every operation of a document."""
    found = []
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            content = operation.get("requestBody", {}).get("content", {})
            found.append(
                Operation(
                    service=service,
                    method=method.upper(),
                    path=path,
                    parameters=item.get("parameters", []) + operation.get("parameters", []),
                    body=content.get("application/json", {}).get("schema"),
                    responses=operation["responses"],
                    secured=bool(operation.get("security")),
                    document=document,
                )
            )
    return found


def first_error(schema: dict, value, document: dict) -> str | None:
    """Why a value does not fit a schema of this document; OpenAPI 3.1 is JSON Schema 2020-12."""
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"], **schema}
    checker = jsonschema.Draft202012Validator(whole)
    error = jsonschema.exceptions.best_match(checker.iter_errors(value))
    return f"/{'/'.join(map(str, error.absolute_path))} {error.message}"[:300] if error else None


def plain(schema: dict, document: dict) -> tuple[dict, bool]:
    """The schema without references, and whether null is a value too."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    for word in ("oneOf", "anyOf", "allOf"):
        if word in schema:
            others = [one for one in schema[word] if one.get("type") != "null"]
            if len(others) == 1:
                inner, nullable = plain(others[0], document)
                return inner, nullable or len(others) < len(schema[word])
    kind = schema.get("type")
    if isinstance(kind, list):
        (single,) = [one for one in kind if one != "null"]
        return {**schema, "type": single}, "null" in kind
    return schema, False


def loose_ends(operation: Operation) -> list[str]:
    """What the document leaves open of a request body: a client cannot know what is refused."""
    found = []

    def look(schema: dict, pointer: str) -> None:
        schema, _ = plain(schema, operation.document)
        match schema.get("type"):
            case "object":
                if schema.get("additionalProperties") is not False:
                    found.append(f"{pointer or 'the body'} does not say that unknown fields are refused")
                for name, inner in schema.get("properties", {}).items():
                    look(inner, f"{pointer}/{name}")
            case "array":
                if not {"minItems", "maxItems"} <= schema.keys():
                    found.append(f"{pointer} has no minItems and maxItems")
                look(schema["items"], f"{pointer}/0")
            case "string":
                if not {"enum", "pattern", "maxLength"} & schema.keys() and schema.get("format") != "date-time":
                    found.append(f"{pointer} has no enum, pattern or maxLength")
            case "integer":
                if not {"minimum", "maximum"} <= schema.keys():
                    found.append(f"{pointer} has no minimum and maximum")
            case other:
                found.append(f"{pointer} has the type {other}")

    if operation.body is not None:
        look(operation.body, "")
    return found
