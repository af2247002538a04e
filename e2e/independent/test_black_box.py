"""Proves that black_box.py can fail: answers with one thing wrong at a time, and services that take or break on everything.

    python3 -m unittest discover
"""

import json
import unittest
from email.message import Message

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from answer_rules import Report, names_field, wrong_with
from black_box import Prober, probe_all
from http_client import Answer, Tokens
from openapi import loose_ends, operations
from wrong_bodies import wrong_bodies
from wrong_requests import Aim, Maker

PROBLEM = {"type": "/problems/validation", "title": "Validation", "status": 422, "detail": "/name is missing", "code": "VALIDATION"}
PROBLEM |= {"errors": [{"pointer": "/name", "detail": "is missing"}]}
RIGHT = {"name": "tea", "size": 5, "tags": ["NEW"]}


def document():
    problem = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    toy = {
        "type": "object",
        "required": ["name", "size"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]{1,8}$"},
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "tags": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "enum": ["NEW", "OLD"]}},
        },
    }
    texts = {name: {"type": "string"} for name in ("type", "title", "detail", "code")}
    schema = {"type": "object", "required": ["status", *texts], "properties": {**texts, "status": {"type": "integer"}}}
    operation = {
        "security": [{"bearer": []}],
        "parameters": [{"name": "Idempotency-Key", "in": "header", "required": True, "schema": {"type": "string"}}],
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Toy"}}}},
        "responses": {
            "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Toy"}}}},
            **{str(status): problem for status in (400, 401, 413, 415, 422)},
        },
    }
    return {"components": {"schemas": {"Toy": toy, "Problem": schema}}, "paths": {"/v1/toys": {"post": operation}}}


def answer(status=422, body=None, **headers):
    message = Message()
    given = {"X-Request-Id": "1", "Content-Type": "application/problem+json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in given.items():
        if value is not None:
            message[name] = value
    return Answer(status, message, body if isinstance(body, bytes) else json.dumps(PROBLEM if body is None else body).encode())


class Server:
    """Answers every request alike."""

    def __init__(self, one):
        self.one = one

    def send(self, _):
        return self.one


class BlackBox(unittest.TestCase):
    def setUp(self):
        (self.operation,) = operations("toy-svc", document())

    def wrong(self, one):
        return wrong_with(one, self.operation, "POST")

    def test_a_good_problem_and_a_good_answer_pass(self):
        self.assertEqual(self.wrong(answer()), [])
        self.assertEqual(self.wrong(answer(200, RIGHT, Content_Type="application/json; charset=utf-8")), [])

    def test_each_mistake_of_a_problem_is_found(self):
        mistakes = {
            "5xx": answer(500, {**PROBLEM, "status": 500}),
            "no request ID": answer(X_Request_Id=None),
            "text": answer(body=b"Unprocessable", Content_Type="text/plain"),
            "plain JSON": answer(Content_Type="application/json"),
            "no body": answer(body=b""),
            "a list": answer(body=[PROBLEM]),
            "another status": answer(body={**PROBLEM, "status": 400}),
            "another type": answer(body={**PROBLEM, "type": "about:blank"}),
            "a code in words": answer(body={**PROBLEM, "code": "not valid", "type": "/problems/not valid"}),
            "no pointer": answer(body={**PROBLEM, "errors": [{"pointer": "name", "detail": "is missing"}]}),
            "nothing expected": answer(body={**PROBLEM, "errors": [{"pointer": "/name", "detail": "invalid value"}]}),
            "the inside": answer(body={**PROBLEM, "detail": "sqlx::Error at src/store.rs:7"}),
            "no challenge": answer(401, {**PROBLEM, "status": 401}),
            "undocumented": answer(418, {**PROBLEM, "status": 418}),
        }
        for name in ("type", "title", "detail", "code", "status"):
            mistakes[f"no {name}"] = answer(body={key: value for key, value in PROBLEM.items() if key != name})
        for label, one in mistakes.items():
            with self.subTest(label):
                self.assertTrue(self.wrong(one))

    def test_an_answer_that_does_not_fit_its_schema_is_found(self):
        for body in ({"name": "tea"}, {**RIGHT, "size": "5"}, {**RIGHT, "more": 1}, []):
            self.assertTrue(self.wrong(answer(200, body, Content_Type="application/json")), body)

    def test_the_field_must_be_named(self):
        self.assertIsNone(names_field(answer(), "/name"))
        self.assertTrue(names_field(answer(), "/size"))
        self.assertTrue(names_field(answer(body={**PROBLEM, "errors": []}), "/name"))

    def test_every_wrong_body_is_wrong_and_they_are_many(self):
        found = list(wrong_bodies(self.operation, RIGHT))
        self.assertGreater(len(found), 200)
        for wrong in found:
            try:
                same = json.loads(wrong.body.decode()) == RIGHT and wrong.body.count(b'"name"') + wrong.body.count(b'"size"') == 2
            except (ValueError, RecursionError):
                continue
            self.assertFalse(same and wrong.body.count(b'"tags"') == 1, wrong)
        pointers = {wrong.pointer for wrong in found}
        self.assertLessEqual({"", "/name", "/size", "/tags", "/tags/0", "/tags/1", "/surplus", "/a~1b~0c"}, pointers)

    def test_a_document_with_open_ends_is_found(self):
        self.assertEqual(loose_ends(self.operation), [])
        for name, word in (("name", "pattern"), ("size", "maximum"), ("tags", "minItems")):
            open_end = document()
            del open_end["components"]["schemas"]["Toy"]["properties"][name][word]
            self.assertTrue(loose_ends(operations("toy-svc", open_end)[0]), name)

    def test_a_service_that_takes_everything_and_one_that_breaks_on_everything_are_found(self):
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        aim = Aim(self.operation, "http://nowhere", {}, "customer", json.dumps(RIGHT).encode())
        bad = [answer(200, RIGHT, Content_Type="application/json"), answer(500, {**PROBLEM, "status": 500}), answer(422)]
        for one in bad:
            report = Report()
            probe_all([aim], Maker(Tokens(key), "ann"), Prober(Server(one), report))
            requests = sum(sum(counts.values()) for counts in report.counts.values())
            self.assertGreater(requests, 300)
            names = {entry["case"] for entry in report.violations}
            for case in ("a token expired", "key missing", "content type text/plain", "/size is 11", "method PATCH", "10 GB declared"):
                self.assertIn(case, names, one.status)


if __name__ == "__main__":
    unittest.main()
