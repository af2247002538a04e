"""What right requests do, as DESIGN §6 and CONTRACT tell it: a few orders from placing to their ends, seen from outside.

Every answer goes through the same rules as those to wrong requests, and must fit its OpenAPI schema.
"""

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from answer_rules import Report, names_field, wrong_with
from http_client import Answer, Http, NoAnswer, Request, Tokens, gateway_signature
from openapi import Operation

DEADLINE_SECONDS = 30
POLL_SECONDS = 0.05
TWINS = 6


class Shop:
    """Speaks to the four services in turn for different people, and keeps what was wrong."""

    def __init__(self, stack: dict, tokens: Tokens, http: Http, report: Report, operations: list[Operation]):
        self.bases = {service["name"]: service["http"] for service in reversed(stack["services"])}
        self.tokens, self.http, self.report = tokens, http, report
        self.operations = {(one.service, one.method, one.path): one for one in operations}
        self.run = uuid.uuid4().hex[:8]

    def person(self, name: str) -> str:
        return f"{name}-{self.run}"

    def ask(self, service: str, method: str, path: str, who: str, body=None, role="customer", query="", **more) -> Answer:
        """`path` has its `{names}` filled by `more`; what is left of `more` are headers (with _ for -)."""
        operation = self.operations[service, method, path]
        values = {name: str(more.pop(name)) for name in list(more) if f"{{{name}}}" in path}
        headers = {"authorization": f"Bearer {self.tokens.token(who, role)}"} if operation.secured else {}
        if body is not None:
            headers["content-type"] = "application/json"
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.named("header")):
            headers["idempotency-key"] = str(uuid.uuid4())
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        raw = None if body is None else json.dumps(body).encode()
        request = Request(method, self.bases[service] + operation.url(values) + query, list(headers.items()), raw)
        name = f"{service} {operation.name}"
        try:
            answer = self.http.send(request)
        except NoAnswer as error:
            self.report.violation(name, "flow", f"no answer: {error}", request)
            raise
        self.report.counts[name][answer.status] += 1
        for wrong in wrong_with(answer, operation, method):
            self.report.violation(name, "flow", wrong, request, answer)
        return answer

    def check(self, what: str, true: bool, answer: Answer | None = None) -> None:
        if not true:
            self.report.violation("flow", what, "it is not so", None, answer)

    def eventually(self, what: str, ask: Callable[[], Answer], good: Callable[[Answer], bool]) -> Answer:
        end = time.monotonic() + DEADLINE_SECONDS
        while not good(answer := ask()):
            if time.monotonic() > end:
                self.check(f"{what} within {DEADLINE_SECONDS} s", False, answer)
                return answer
            time.sleep(POLL_SECONDS)
        return answer

    def product(self, name: str, amount: int, quantity: int) -> str:
        """Listed, on the shelf, and in order-svc's catalogue."""
        body = {"name": name, "price": {"amount": amount, "currency": "USD"}}
        listed = self.ask("inventory-svc", "POST", "/v1/products", "ops", body, "operator", prefer="wait=10")
        self.check("a product is listed: 201 with Location", listed.status == 201 and bool(listed.headers.get("Location")), listed)
        product_id = listed["product_id"]
        path = "/v1/products/{id}/receipts"
        got = self.ask("inventory-svc", "POST", path, "ops", {"quantity": quantity}, "operator", id=product_id, prefer="wait=10")
        self.check("goods arrive", got.status == 200 and got["on_hand"] == quantity == got["available"], got)
        self.eventually(
            "the product is in the catalogue",
            lambda: self.ask("order-svc", "GET", "/v1/products", "ops", query="?limit=200"),
            lambda answer: any(item["product_id"] == product_id for item in answer["items"] or []),
        )
        return product_id

    def place(self, who: str, product_id: str, quantity: int = 1, method: str = "pm_ok", **headers) -> Answer:
        body = {"lines": [{"product_id": product_id, "quantity": quantity}], "payment_method": method}
        body |= headers.pop("more", {})
        return self.ask("order-svc", "POST", "/v1/orders", who, body, **headers)

    def order(self, who: str, order_id: str, role="customer") -> Answer:
        return self.ask("order-svc", "GET", "/v1/orders/{id}", who, id=order_id, role=role)

    def cancel(self, who: str, order_id: str, **headers) -> Answer:
        body = headers.pop("body", {"reason": "CHANGED_MIND"})
        return self.ask("order-svc", "POST", "/v1/orders/{id}/cancel", who, body, id=order_id, prefer="wait=10", **headers)


def placed_and_confirmed(shop: Shop, product: str) -> str:
    """Accepted, never lost, confirmed; the same key gives the same order, byte for byte."""
    ann, key = shop.person("ann"), f"flow-{uuid.uuid4()}"
    first = shop.place(ann, product, 2, idempotency_key=key)
    order_id = first["order_id"]
    shop.check("an order is accepted: 202", first.status == 202 and first["status"] == "ACCEPTED", first)
    shop.check("Location names the order", (first.headers.get("Location") or "").endswith(f"/v1/orders/{order_id}"), first)
    seen = shop.order(ann, order_id)
    shop.check("a just-accepted order is never 404", seen.status == 200, seen)
    for spelling in (key, f'"{key}"'):
        again = shop.place(ann, product, 2, idempotency_key=spelling)
        same = again.status == 202 and again.raw == first.raw and again.headers.get("Idempotency-Replayed") == "true"
        shop.check("the same key gives the stored 202, byte for byte", same, again)
    other = shop.place(ann, product, 3, idempotency_key=key)
    shop.check("the same key with another body: 422", other.status == 422, other)
    theirs = shop.place(shop.person("bob"), product, 2, idempotency_key=key)
    shop.check("another customer's same key is another order", theirs.status == 202 and theirs["order_id"] != order_id, theirs)
    seen = shop.eventually("CONFIRMED", lambda: shop.order(ann, order_id), lambda answer: answer["status"] == "CONFIRMED")
    shop.check("version 2 and its ETag", seen["version"] == 2 and seen.headers.get("ETag") == '"2"', seen)
    shop.check("the total", seen["total"] == {"amount": 198, "currency": "USD"}, seen)
    shop.check("the customer", seen["customer_id"] == ann and seen["reason"] is None, seen)
    late = shop.place(ann, product, 2, idempotency_key=key)
    shop.check("the key finds the order after its end", late.raw == first.raw and late.status == 202, late)
    refused = shop.cancel(ann, order_id)
    final = (refused.status, refused["order_status"], refused["order_id"]) == (409, "CONFIRMED", order_id)
    shop.check("a final order is not cancelled: 409", final, refused)
    told_by_the_log(shop, ann, order_id)
    return order_id


def told_by_the_log(shop: Shop, who: str, order_id: str) -> None:
    names = ["orderlog.order.OrderPlaced", "orderlog.order.OrderConfirmed"]
    events = shop.eventually(
        "the order's events",
        lambda: shop.ask("order-svc", "GET", "/v1/orders/{id}/events", who, id=order_id),
        lambda answer: [item["type"] for item in answer["items"] or [] if item["type"] in names] == names,
    )
    items = [item for item in events["items"] or [] if item["type"] in names]
    shop.check("its versions are 1 and 2", [item["version"] for item in items] == [1, 2], events)
    same = all(str(item["data"]["order_id"]) == order_id for item in items)
    shop.check("its data are about the order", same, events)


def twins(shop: Shop, product: str) -> None:
    """One key at the same time on several connections: one order, or 409 for a moment."""
    ann, key = shop.person("ann"), f"twins-{uuid.uuid4()}"

    def one(_) -> Answer:
        other = Shop.__new__(Shop)
        other.__dict__ |= shop.__dict__ | {"http": Http()}
        return other.place(ann, product, idempotency_key=key)

    with ThreadPoolExecutor(TWINS) as pool:
        answers = list(pool.map(one, range(TWINS)))
    for answer in answers:
        waits = answer.status == 409 and bool(answer.headers.get("Retry-After"))
        shop.check("a twin is 202, or 409 with Retry-After", answer.status == 202 or waits, answer)
    orders = {answer["order_id"] for answer in answers if answer.status == 202}
    shop.check("twins are one order", len(orders) == 1)


def strangers_see_nothing(shop: Shop, order_id: str) -> None:
    eve = shop.person("eve")
    orders = "/v1/orders/{id}"
    for answer in (
        shop.order(eve, order_id),
        shop.ask("order-svc", "GET", orders + "/events", eve, id=order_id),
        shop.cancel(eve, order_id),
        shop.ask("payment-svc", "GET", "/v1/payments/{order_id}", eve, order_id=order_id),
        shop.order(eve, "1"),
    ):
        shop.check("another's order is 404, as one that is not", answer.status == 404, answer)
    notices = shop.ask("notify-svc", "GET", "/v1/notifications", eve, query=f"?order={order_id}")
    shop.check("another's notices are not shown", notices.status == 404 or notices["items"] == [], notices)
    shop.check("an operator sees it", shop.order("ops", order_id, "operator").status == 200)
    contact = {"email": "eve@example.test"}
    theirs = shop.ask("notify-svc", "PUT", "/v1/contacts/{customer_id}", eve, contact, customer_id=shop.person("ann"))
    shop.check("another's contact: 403", theirs.status == 403, theirs)


def cancelled(shop: Shop, product: str) -> None:
    ann = shop.person("ann")
    placed = shop.place(ann, product, method="pm_checkout", prefer="wait=10")
    order_id = placed["order_id"]
    shop.check("with Prefer: wait an order is 201 with Location", placed.status == 201 and "Location" in placed.headers, placed)
    wrong = shop.cancel(ann, order_id, if_match='"7"')
    shop.check("another version: 412", wrong.status == 412, wrong)
    malformed = shop.cancel(ann, order_id, if_match="seven")
    shop.check("a malformed If-Match: 400", malformed.status == 400, malformed)
    done = shop.cancel(ann, order_id, if_match='"1"')
    said = (done.status, done["status"], done["reason"], done["customer_reason"])
    shop.check("cancelled: 200", said == (200, "CANCELLED", "CUSTOMER", "CHANGED_MIND"), done)
    again = shop.cancel(ann, order_id, body={})
    shop.check("cancelled twice: 409", again.status == 409 and again["order_status"] == "CANCELLED", again)
    shop.eventually(
        "its payment is CANCELLED",
        lambda: shop.ask("payment-svc", "GET", "/v1/payments/{order_id}", ann, order_id=order_id),
        lambda answer: answer["status"] == "CANCELLED",
    )


def refused_for_what_they_say(shop: Shop, product: str) -> None:
    ann = shop.person("ann")
    dear = {"expected_total": {"amount": 1, "currency": "USD"}}
    answer = shop.place(ann, product, prefer="wait=10", more=dear)
    said = (answer.status, answer["code"], answer["order_status"])
    shop.check("another total: 409 PRICE_CHANGED", said == (409, "PRICE_CHANGED", "REJECTED"), answer)
    right = shop.place(ann, product, prefer="wait=10", more={"expected_total": {"amount": 99, "currency": "USD"}})
    shop.check("the right total: 201", right.status == 201, right)
    unknown = shop.place(ann, "9223372036854775807")
    shop.check("an unknown product: 422", unknown.status == 422 and not names_field(unknown, "/lines/0/product_id"), unknown)
    twice = {"lines": [{"product_id": product, "quantity": 1}] * 2}
    answer = shop.place(ann, product, more=twice)
    shop.check("a product twice: 422", answer.status == 422 and not names_field(answer, "/lines/1/product_id"), answer)
    precious = shop.product("THE MOON", 2**63 - 1, 10)
    answer = shop.place(ann, precious, 2, prefer="wait=10")
    shop.check("a total that no number holds is refused", 400 <= answer.status < 500, answer)


def lists(shop: Shop, product: str) -> None:
    cora = shop.person("cora")
    placed = [shop.place(cora, product, prefer="wait=10")["order_id"] for _ in range(3)]
    first = shop.ask("order-svc", "GET", "/v1/orders", cora, query="?limit=2")
    shop.check("a page has as many items as asked for", len(first["items"]) == 2 and bool(first["next_cursor"]), first)
    rest = shop.ask("order-svc", "GET", "/v1/orders", cora, query=f"?limit=2&cursor={first['next_cursor']}")
    shop.check("the last page has no next one", rest["next_cursor"] is None, rest)
    seen = [item["order_id"] for item in first["items"] + rest["items"]]
    shop.check("the pages are the customer's orders, each once", sorted(seen) == sorted(placed), rest)
    none = shop.ask("order-svc", "GET", "/v1/orders", cora, query="?status=EXPIRED")
    shop.check("a status that none has", none["items"] == [] and none["next_cursor"] is None, none)
    everyone = shop.ask("order-svc", "GET", "/v1/orders", "ops", role="operator", query="?limit=200")
    others = {item["customer_id"] for item in everyone["items"]}
    shop.check("operators see all", len(others) > 1, everyone)
    products = shop.ask("order-svc", "GET", "/v1/products", cora, query="?limit=1")
    shop.check("products are a list too", len(products["items"]) == 1 and bool(products["next_cursor"]), products)


def stock(shop: Shop, product: str) -> None:
    def ask(method: str, path: str, body=None) -> Answer:
        return shop.ask("inventory-svc", method, f"/v1/products/{{id}}{path}", "ops", body, "operator", id=product, prefer="wait=10")

    before = ask("GET", "/stock")
    shop.check("available is on hand less reserved", before["available"] == before["on_hand"] - before["reserved"], before)
    less = ask("POST", "/adjustments", {"delta": -3, "reason": "DAMAGED"})
    shop.check("an adjustment counts", less.status == 200 and less["on_hand"] == before["on_hand"] - 3, less)
    below = ask("POST", "/adjustments", {"delta": -1_000_000_000, "reason": "LOST"})
    shop.check("an adjustment below what is there is refused", below.status == 409, below)
    for _ in range(2):
        price = ask("PUT", "/price", {"amount": 120, "currency": "USD"})
        shop.check("a price, and the same again", price.status == 200 and price["price"]["amount"] == 120, price)
    for _ in range(2):
        gone = ask("DELETE", "")
        shop.check("delisted, and again", gone.status == 200 and gone["listed"] is False, gone)
    unknown = shop.ask("inventory-svc", "DELETE", "/v1/products/{id}", "ops", None, "operator", id="77", prefer="wait=10")
    shop.check("an unknown product: 404", unknown.status == 404, unknown)


def refunded(shop: Shop, order_id: str) -> None:
    path, ann = "/v1/payments/{order_id}", shop.person("ann")

    def refund(role: str) -> Answer:
        who = "ops" if role == "operator" else ann
        return shop.ask("payment-svc", "POST", path + "/refunds", who, {}, role, order_id=order_id, prefer="wait=10")

    own = refund("customer")
    shop.check("customers refund nothing: 403", own.status == 403, own)
    done = refund("operator")
    shop.check("an operator refunds", done.status in (200, 202), done)
    paid = shop.eventually(
        "REFUNDED", lambda: shop.ask("payment-svc", "GET", path, ann, order_id=order_id), lambda answer: answer["status"] == "REFUNDED"
    )
    shop.check("all of it", paid["refunded"] == paid["amount"] and paid["pay_url"] is None, paid)
    twice = refund("operator")
    shop.check("twice: 409", twice.status == 409, twice)


def reported(shop: Shop, order_id: str, secret: str) -> None:
    """The gateway says again, under a new event and twice, what it has said: taken, and without effect."""
    ann, path = shop.person("ann"), "/v1/payments/{order_id}"
    before = shop.ask("payment-svc", "GET", path, ann, order_id=order_id)
    report = {"event_id": f"again-{shop.run}", "type": "charge.captured", "key": f"charge:{order_id}", **before["amount"]}
    report["occurred_at"] = "2026-01-02T03:04:05.678Z"
    signature = gateway_signature(secret, json.dumps(report).encode())
    for _ in range(2):
        taken = shop.ask("payment-svc", "POST", "/v1/callbacks/gateway", "", report, gateway_signature=signature)
        shop.check("a signed report is taken, a repeat too: 200", taken.status == 200, taken)
    other = {**report, "type": "charge.declined"}
    signature = gateway_signature(secret, json.dumps(other).encode())
    reused = shop.ask("payment-svc", "POST", "/v1/callbacks/gateway", "", other, gateway_signature=signature)
    shop.check("another report under the same event ID is refused or has no effect", reused.status in (200, 422), reused)
    after = shop.ask("payment-svc", "GET", path, ann, order_id=order_id)
    shop.check("and the payment is as before", after.body == before.body, after)


def contacts(shop: Shop, order_id: str) -> None:
    path, ann = "/v1/contacts/{customer_id}", shop.person("ann")
    contact = {"email": "ann@example.test", "phone": "+4915112345678"}
    put = shop.ask("notify-svc", "PUT", path, ann, contact, customer_id=ann)
    shop.check("a contact is kept", put.status == 200 and put.body == {"customer_id": ann, **contact}, put)
    empty = shop.ask("notify-svc", "PUT", path, ann, {}, customer_id=ann)
    shop.check("each address is optional", empty.status == 200, empty)
    for _ in range(2):
        gone = shop.ask("notify-svc", "DELETE", path, ann, customer_id=ann)
        shop.check("a contact is forgotten: 204", gone.status == 204 and gone.raw == b"", gone)
    shop.eventually(
        "the order's notices",
        lambda: shop.ask("notify-svc", "GET", "/v1/notifications", ann, query=f"?order={order_id}"),
        lambda answer: any(item["kind"] == "ORDER_CONFIRMED" for item in answer["items"] or []),
    )


def all_flows(shop: Shop, secret: str) -> dict[str, str]:
    """Every flow; returns IDs of things that are there now, for requests that are wrong in something else."""
    product = shop.product("BANANAS", 99, 1000)
    confirmed = placed_and_confirmed(shop, product)
    twins(shop, product)
    strangers_see_nothing(shop, confirmed)
    cancelled(shop, product)
    refused_for_what_they_say(shop, product)
    lists(shop, product)
    contacts(shop, confirmed)
    reported(shop, confirmed, secret)
    refunded(shop, confirmed)
    stock(shop, shop.product("APPLES", 110, 50))
    ann = shop.person("ann")
    open_order = shop.place(ann, product, method="pm_checkout", prefer="wait=10")["order_id"]
    shop.eventually(
        "a payment page",
        lambda: shop.ask("payment-svc", "GET", "/v1/payments/{order_id}", ann, order_id=open_order),
        lambda answer: answer["status"] == "PENDING" and open_order in (answer["pay_url"] or ""),
    )
    return {"product": product, "confirmed": confirmed, "open": open_order}


def seen(shop: Shop, things: dict[str, str]) -> dict:
    """What wrong requests must not change."""
    ann = shop.person("ann")
    stock = shop.ask("inventory-svc", "GET", "/v1/products/{id}/stock", ann, id=things["product"])
    products = shop.ask("order-svc", "GET", "/v1/products", ann, query="?limit=200")["items"]
    payments = [shop.ask("payment-svc", "GET", "/v1/payments/{order_id}", ann, order_id=things[one]) for one in ("open", "confirmed")]
    return {
        "order": shop.order(ann, things["open"]).body,
        "payments": [payment.body for payment in payments],
        # What is sold leaves the house; earlier orders may do so at any time.
        "pieces": stock["on_hand"] + stock["sold"],
        "product": next(one for one in products if one["product_id"] == things["product"]),
        "orders": len(shop.ask("order-svc", "GET", "/v1/orders", ann, query="?limit=200")["items"]),
    }
