"""Asks the four services for thousands of wrong things and a few right ones, and says where they break their word.

A client written from DESIGN §6, CONTRACT and the OpenAPI documents alone; nothing of Orderlog is imported. No request may
be answered by a 5xx, every error is a problem document that names the wrong field, every answer is as documented. Exit
status 0 without a violation, 1 with one line per violation, 2 when the services cannot be asked.

    pip install --target LIBRARIES -r requirements.txt; export PYTHONPATH=LIBRARIES
    python3 black_box.py --stack .orderlog/stack.json --signing-key .orderlog/keys/signing.pem --gateway-secret SECRET [--json]
"""

import argparse
import json
import sys
from collections.abc import Iterator
from urllib.parse import quote

from answer_rules import Report, names_field, wrong_with
from flows import Shop, all_flows, seen
from http_client import Http, NoAnswer, Request, Tokens
from openapi import Operation, loose_ends, operations
from wrong_bodies import wrong_bodies
from wrong_requests import Aim, Case, Maker

CALLBACK = "/v1/callbacks/gateway"
# Whose routes they are (DESIGN §6, CONTRACT): all others are any role's.
OPERATORS = {"POST /v1/products", "POST /v1/products/{id}/receipts", "POST /v1/products/{id}/adjustments"}
OPERATORS |= {"PUT /v1/products/{id}/price", "DELETE /v1/products/{id}", "POST /v1/payments/{order_id}/refunds"}


def documents(stack: dict, http: Http) -> list[Operation]:
    """All operations of all services, from `/openapi.json`."""
    found = []
    for service in stack["services"]:
        if service["instance"] == 0 and not any(one.service == service["name"] for one in found):
            answer = http.send(Request("GET", service["http"] + "/openapi.json", [], None))
            if answer.status != 200 or answer.body is None:
                raise NoAnswer(f"{service['name']} has no /openapi.json: {answer.status}")
            found += operations(service["name"], answer.body)
    return found


def aims(found: list[Operation], shop: Shop, things: dict[str, str], secret: str) -> Iterator[Aim]:
    """Each operation with a right body that has every field, and IDs of things that are there."""
    price = {"amount": 99, "currency": "USD"}
    rights = {
        "POST /v1/orders": {
            "lines": [{"product_id": things["product"], "quantity": 1}],
            "payment_method": "pm_ok",
            "expected_total": price,
        },
        "POST /v1/orders/{id}/cancel": {"reason": "CHANGED_MIND"},
        "POST /v1/products": {"product_id": "4242", "name": "PEARS", "price": price},
        "POST /v1/products/{id}/receipts": {"quantity": 1},
        "POST /v1/products/{id}/adjustments": {"delta": -1, "reason": "DAMAGED"},
        "PUT /v1/products/{id}/price": price,
        "POST /v1/payments/{order_id}/refunds": {"reason": "OTHER"},
        f"POST {CALLBACK}": {
            "event_id": f"black-box-{shop.run}",
            "type": "charge.captured",
            "key": f"charge:{things['open']}",
            "amount": 99,
            "currency": "USD",
            "occurred_at": "2026-01-02T03:04:05.678Z",
        },
        "PUT /v1/contacts/{customer_id}": {"email": "ann@example.test", "phone": "+4915112345678"},
    }
    for operation in found:
        product = operation.path.startswith("/v1/products")
        values = {"id": things["product" if product else "open"], "order_id": things["confirmed"]}
        right = rights.get(operation.name)
        if operation.body is not None and right is None:
            shop.report.violation(operation.name, "document", "this program knows no right body of a new operation")
            continue
        yield Aim(
            operation=operation,
            base=shop.bases[operation.service],
            values=values | {"customer_id": quote(shop.person("ann"))},
            role="operator" if operation.name in OPERATORS else "customer",
            right=None if right is None else json.dumps(right).encode(),
            query=f"?order={things['confirmed']}" if operation.path == "/v1/notifications" else "",
            secret=secret if operation.path == CALLBACK else None,
        )


class Prober:
    """Sends cases and holds the rules against the answers."""

    def __init__(self, http: Http, report: Report):
        self.http, self.report = http, report

    def probe(self, name: str, operation: Operation | None, case: Case) -> None:
        try:
            answer = self.http.send(case.request)
        except NoAnswer as error:
            self.report.violation(name, case.label, f"no answer: {error}", case.request)
            return
        self.report.counts[name][answer.status] += 1
        found = wrong_with(answer, operation if case.documented else None, case.request.method)
        if answer.status not in case.statuses:
            found.append(f"status {answer.status} instead of {' or '.join(map(str, sorted(case.statuses)))}")
        elif case.pointer is not None and (wrong := names_field(answer, case.pointer)):
            found.append(wrong)
        for wrong in found:
            self.report.violation(name, case.label, wrong, case.request, answer)


def body_cases(aim: Aim, maker: Maker) -> Iterator[Case]:
    for wrong in wrong_bodies(aim.operation, json.loads(aim.right)):
        yield Case(wrong.label, maker.request(aim, wrong.body), wrong.statuses, wrong.pointer)


def probe_all(found: list[Aim], maker: Maker, prober: Prober) -> None:
    """Everything wrong that can be made from the documents."""
    taken: dict[tuple[str, str], set[str]] = {}
    for aim in found:
        taken.setdefault((aim.base, aim.operation.path), set()).add(aim.operation.method)
    for aim in found:
        operation, name = aim.operation, f"{aim.operation.service} {aim.operation.name}"
        for open_end in loose_ends(operation):
            prober.report.violation(name, "document", open_end)
        for case in maker.cases(aim):
            prober.probe(name, operation, case)
        if aim.right is not None:
            for case in body_cases(aim, maker):
                prober.probe(name, operation, case)
        methods = taken.pop((aim.base, operation.path), None)
        if methods is not None:
            for case in maker.other_methods(aim, methods):
                prober.probe(f"{operation.service} other methods", None, case)
    for base in {aim.base for aim in found}:
        here = [aim for aim in found if aim.base == base]
        for case in maker.nowhere(base, [aim.operation.path for aim in here]):
            prober.probe(f"{here[0].operation.service} nowhere", None, case)


def probe_admin(stack: dict, maker: Maker, prober: Prober) -> None:
    """Admin routes that are there: 401 without a token, 403 as customer."""
    for service in stack["services"]:
        url = service["admin"] + "/admin/processors"
        name = f"{service['name']} admin"
        operator = Request("GET", url, [("authorization", maker.bearers["operator"])], None)
        if prober.http.send(operator).status == 404:
            continue
        customer = [("authorization", maker.bearers["customer"])]
        for label, headers, status in (("no token", [], 401), ("as customer", customer, 403)):
            case = Case(label, Request("GET", url, headers, None), frozenset({status}), None, False)
            prober.probe(name, None, case)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", required=True, help="stack.json of the running stack")
    parser.add_argument("--signing-key", required=True, help="PEM of the key that tokens are signed with")
    parser.add_argument("--gateway-secret", required=True, help="what callbacks are signed with")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    with open(options.stack, encoding="utf-8") as file:
        stack = json.load(file)
    with open(options.signing_key, "rb") as file:
        tokens = Tokens(file.read())
    http, report = Http(), Report()
    try:
        found = documents(stack, http)
        shop = Shop(stack, tokens, http, report, found)
        things = all_flows(shop, options.gateway_secret)
        maker, prober = Maker(tokens, shop.person("ann")), Prober(http, report)
        before = seen(shop, things)
        probe_all(list(aims(found, shop, things, options.gateway_secret)), maker, prober)
        probe_admin(stack, maker, prober)
        after = seen(shop, things)
        for name in before:
            if before[name] != after[name]:
                report.violation("all", "wrong requests change nothing", f"{name}: {before[name]} became {after[name]}")
        # Nothing is left open: whoever looks at the log next wants every order at its end.
        shop.check("the open order can be cancelled", shop.cancel(shop.person("ann"), things["open"]).status == 200)
    except NoAnswer as error:
        print(f"the services cannot be asked: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(report.as_json())
    else:
        print(report.table())
        for entry in report.violations:
            print("violation: " + " | ".join(f"{name} {text!r}" if name != "operation" else text for name, text in entry.items()))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
