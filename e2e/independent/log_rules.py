"""What must be true of the log, judged from its records alone. Written from DESIGN §3 and CONTRACT, "The log".

It knows no Kafka client and does no IO: records and a decoder come in, findings go out. It imports nothing of Orderlog.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from murmur2 import partition_of

ID_MAX = 2**63 - 1
# Topic (without prefix) -> who writes its events, and how its types are called.
EVENTS = {
    "order.events": ("/order-svc", "orderlog.order."),
    "inventory.events": ("/inventory-svc", "orderlog.inventory."),
    "payment.events": ("/payment-svc", "orderlog.payment."),
    "notification.events": ("/notify-svc", "orderlog.notification."),
}
COMMANDS = {
    "order.commands": ("/order-svc", "orderlog.order."),
    "inventory.commands": ("/inventory-svc", "orderlog.inventory."),
    "payment.commands": ("/payment-svc", "orderlog.payment."),
}
BENCH = "/orderctl"
CRATES = ("order-svc", "inventory-svc", "payment-svc", "notify-svc")
RETRY_TYPES = {"orderlog.engine.RecordHeld", "orderlog.engine.AttemptFailed", "orderlog.engine.RecordSettled"}
DLQ_TYPES = {"orderlog.engine.RecordDied"}
FAILURE = (
    "topic partition offset timestamp service instance version class code message first-at last-at attempts".split()
)
# Facts about a product have no order to correlate with.
PRODUCT_FACTS = {"ProductListed", "ProductRepriced", "ProductDelisted", "StockReceived", "StockAdjusted"}

DECIMAL = re.compile(r"[1-9][0-9]{0,18}")
SEQUENCE = re.compile(r"[0-9]{19}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
NUMBER = r"(0|[1-9][0-9]*)"
CAUSE = re.compile(rf"(?P<topic>.+)/{NUMBER}/{NUMBER}/({NUMBER})?")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Record:
    """A record as the broker gave it. `topic` is without the stack's prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        for key, value in self.headers:
            if key == name:
                return None if value is None else value.decode("utf-8", "replace")
        return None


@dataclass
class Judgement:
    """What was found, and what was counted per topic and partition."""

    findings: list[str] = field(default_factory=list)
    counts: dict[tuple[str, int], Counter] = field(default_factory=dict)
    types: Counter = field(default_factory=Counter)


class Judge:
    """Takes the records of all topics, in the order of each partition, and judges them together."""

    def __init__(self, partitions: int, decode, prefix: str = ""):
        """`decode(topic, value)` gives (full name, fields, bytes left over) or raises ValueError."""
        self.partitions, self.decode, self.prefix = partitions, decode, prefix
        self.out = Judgement()
        # (topic, partition, sequence) -> first record that has it; (topic, partition, offset) -> record.
        self.sequences: dict[tuple[str, int, int], Record] = {}
        self.places: dict[tuple[str, int, int], Record] = {}
        self.last: dict[tuple[str, int], int] = defaultdict(int)
        self.ids: dict[str, Record] = {}
        self.causes: dict[tuple[str, str], Record] = {}
        self.fields: dict[str, dict] = {}
        self.caused: list[Record] = []

    def find(self, record: Record, what: str) -> None:
        self.out.findings.append(f"{record.place}: {what}")

    def count(self, record: Record, what: str) -> None:
        self.out.counts.setdefault((record.topic, record.partition), Counter())[what] += 1

    def take(self, record: Record) -> None:
        """One record."""
        self.count(record, "records")
        self.places[record.topic, record.partition, record.offset] = record
        if not self.partitioned(record):
            return
        if record.topic in COMMANDS:
            self.command(record)
        elif self.sequenced(record):
            if record.topic in EVENTS:
                self.event(record)
            else:
                self.failure(record)

    def partitioned(self, record: Record) -> bool:
        if record.key is None:
            self.find(record, "it has no key")
            return False
        wanted = partition_of(record.key, self.partitions)
        if wanted != record.partition:
            self.find(record, f"murmur2 puts the key {record.key!r} on partition {wanted} of {self.partitions}")
        return True

    def sequenced(self, record: Record) -> bool:
        """True for a record that a reader takes: the next of its partition."""
        text = record.header("ce_sequence")
        if text is None or not SEQUENCE.fullmatch(text) or int(text) == 0:
            self.find(record, f"its ce_sequence is {text!r}, not 19 digits from 1 on")
            return False
        number, line = int(text), (record.topic, record.partition)
        if number <= self.last[line]:
            first = self.sequences.get((*line, number))
            if first is not None and (first.key, first.value, first.headers) != (
                record.key,
                record.value,
                record.headers,
            ):
                self.find(record, f"repeats sequence {number} of {first.place} with other bytes")
            self.count(record, "repeats")
            return False
        if number != self.last[line] + 1:
            self.find(record, f"a hole: sequence {number} follows {self.last[line]}")
        self.last[line] = number
        self.sequences[*line, number] = record
        return True

    def decoded(self, record: Record) -> tuple[str, dict] | None:
        if record.value is None:
            self.find(record, "it has no value")
            return None
        try:
            name, fields, left = self.decode(record.topic, record.value)
        except ValueError as error:
            self.find(record, f"does not decode: {error}")
            return None
        if left:
            self.find(record, f"{left} bytes are left over behind the {name}")
        self.out.types[f"{record.topic} {name}"] += 1
        if record.header("ce_type") != name:
            self.find(record, f"ce_type is {record.header('ce_type')!r}, its schema's name is {name}")
        if record.header("content-type") != "application/avro":
            self.find(record, f"content-type is {record.header('content-type')!r}")
        return name, fields

    def attributes(self, record: Record, source: str, namespace: str) -> None:
        """The CloudEvents attributes that every record has."""
        names = [name for name, _ in record.headers]
        for name in {name for name in names if names.count(name) > 1}:
            self.find(record, f"the header {name} is there more than once")
        subject = record.key.decode("utf-8", "replace")
        for name, wanted in (("ce_specversion", "1.0"), ("ce_source", source), ("ce_subject", subject)):
            if record.header(name) != wanted:
                self.find(record, f"{name} is {record.header(name)!r} instead of {wanted!r}")
        for name, form in (("ce_id", DECIMAL), ("ce_time", TIME)):
            text = record.header(name)
            if text is None or not form.fullmatch(text):
                self.find(record, f"{name} is {text!r}")
        if not (record.header("ce_type") or "").startswith(namespace):
            self.find(record, f"ce_type {record.header('ce_type')!r} does not begin with {namespace}")
        trace = record.header("traceparent")
        if trace is not None and not TRACEPARENT.fullmatch(trace):
            self.find(record, f"traceparent is {trace!r}")

    def keyed(self, record: Record, fields: dict) -> None:
        key = record.key.decode("utf-8", "replace")
        if not DECIMAL.fullmatch(key) or int(key) > ID_MAX:
            self.find(record, f"the key {key!r} is no ID")
        if key not in {str(fields.get("order_id")), str(fields.get("product_id"))}:
            self.find(record, f"the key is {key}, the record is about {fields.get('order_id', fields.get('product_id'))}")

    def identified(self, record: Record) -> bool:
        """True when nobody had this ID before."""
        text = record.header("ce_id")
        if text is None:
            return False
        first = self.ids.setdefault(text, record)
        return first is record

    def command(self, record: Record) -> None:
        source, namespace = COMMANDS[record.topic]
        # The bench appends orders itself.
        self.attributes(record, BENCH if record.header("ce_source") == BENCH else source, namespace)
        if record.header("ce_sequence") is not None:
            self.find(record, "a command has no ce_sequence")
        if not self.identified(record):
            # The same bytes may be appended twice (DESIGN §6); anything else under the ID is a defect.
            first = self.ids[record.header("ce_id")] if record.header("ce_id") else record
            if (first.topic, first.key, first.value) != (record.topic, record.key, record.value):
                self.find(record, f"ce_id {record.header('ce_id')} is that of {first.place} too, with other bytes")
            self.count(record, "repeats")
            return
        if (decoded := self.decoded(record)) is not None:
            self.keyed(record, decoded[1])
            if str(decoded[1].get("command_id")) != record.header("ce_id"):
                self.find(record, f"command_id {decoded[1].get('command_id')} is not ce_id {record.header('ce_id')}")

    def event(self, record: Record) -> None:
        source, namespace = EVENTS[record.topic]
        self.attributes(record, source, namespace)
        if not self.identified(record):
            self.find(record, f"ce_id {record.header('ce_id')} is there more than once")
        self.causation(record)
        if (decoded := self.decoded(record)) is None:
            return
        name, fields = decoded
        self.keyed(record, fields)
        self.fields[record.place] = fields
        about = name.rsplit(".", 1)[-1]
        order = record.header("ce_correlationid")
        if about in PRODUCT_FACTS or (about == "CommandRefused" and record.topic == "inventory.events"):
            if order is not None:
                self.find(record, f"a {about} is about no order, but ce_correlationid is {order}")
        elif order != str(fields.get("order_id")):
            self.find(record, f"ce_correlationid is {order!r}, order_id {fields.get('order_id')}")

    def causation(self, record: Record) -> None:
        cause, by = record.header("ce_cause"), record.header("ce_causationid")
        if by is None or not DECIMAL.fullmatch(by):
            self.find(record, f"ce_causationid is {by!r}")
        if cause in {"timer", "effect", "operator"}:
            return
        if cause is None or not CAUSE.fullmatch(cause):
            self.find(record, f"ce_cause is {cause!r}")
            return
        # One input, at most one event per service.
        first = self.causes.setdefault((record.topic, cause), record)
        if first is not record:
            self.find(record, f"{cause} caused {first.place} already")
        self.caused.append(record)

    def failure(self, record: Record) -> None:
        """A record of a retry or dlq topic: who failed, where, and its original bytes."""
        crate, _, kind = record.topic.rpartition(".")
        self.attributes(record, f"/{crate}", "orderlog.engine.")
        types = RETRY_TYPES if kind == "retry" else DLQ_TYPES
        if record.header("ce_type") not in types:
            self.find(record, f"ce_type {record.header('ce_type')!r} is none of {sorted(types)}")
        if not self.identified(record):
            self.find(record, f"ce_id {record.header('ce_id')} is there more than once")
        for name in FAILURE:
            if record.header(f"failure-{name}") is None:
                self.find(record, f"the header failure-{name} is missing")
        self.out.types[f"{record.topic} {record.header('ce_type')}"] += 1

    def finish(self, settled: bool) -> Judgement:
        """What can be said when everything was read. `settled`: nobody writes any more, so nothing may be open."""
        answered = set()
        for record in self.caused:
            answered.add(self.cause_of(record))
        for record in self.places.values():
            first = self.ids.get(record.header("ce_id") or "") is record
            if settled and record.topic in COMMANDS and first and record.place not in answered:
                self.find(record, f"the {record.header('ce_type')} has caused no event")
        return self.out

    def cause_of(self, record: Record) -> str | None:
        """The place of what caused a record, after a look at whether it did."""
        topic, partition, offset, sequence = record.header("ce_cause").rsplit("/", 3)
        if not topic.startswith(self.prefix):
            self.find(record, f"the topic of ce_cause does not begin with the stack's prefix {self.prefix!r}")
            return None
        topic = topic.removeprefix(self.prefix)
        cause = self.places.get((topic, int(partition), int(offset)))
        if cause is None:
            self.find(record, f"its cause {topic}/{partition}/{offset} is not in the log")
            return None
        if int(partition) != record.partition:
            self.find(record, f"its cause {cause.place} lies on another partition")
        if cause.header("ce_id") != record.header("ce_causationid"):
            self.find(record, f"its cause {cause.place} has ID {cause.header('ce_id')}, not ce_causationid")
        actual = (cause.header("ce_sequence") or "").lstrip("0")
        if sequence != actual:
            self.find(record, f"ce_cause says sequence {sequence!r}, {cause.place} has {actual!r}")
        return cause.place
