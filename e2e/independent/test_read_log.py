"""Proves that read_log.py can fail: one good log, and that log with one thing wrong at a time.

    python3 -m unittest discover
"""

import io
import json
import struct
import unittest
from dataclasses import replace

import fastavro

from log_rules import Judge, Record
from murmur2 import murmur2, partition_of
from read_log import Registry

PARTITIONS = 2
SCHEMAS = {
    1: ("order.commands", "PlaceOrder", ["order_id", "command_id"]),
    2: ("order.events", "OrderPlaced", ["order_id", "command_id"]),
}


class Shelf(Registry):
    """A registry whose answers are written down here."""

    def __init__(self):
        super().__init__("http://nowhere")

    def get(self, path):
        number = int(path.split("/")[3])
        if number not in SCHEMAS:
            raise ValueError(f"the registry answers 404 to {path}")
        topic, name, fields = SCHEMAS[number]
        if path.endswith("/subjects"):
            return [f"{topic}-orderlog.order.{name}"]
        fields = [{"name": field, "type": "long"} for field in fields]
        schema = {"type": "record", "namespace": "orderlog.order", "name": name, "fields": fields}
        return {"schema": json.dumps(schema)}


def value(number, **fields):
    datum = io.BytesIO()
    schema = json.loads(Shelf().get(f"/schemas/ids/{number}")["schema"])
    fastavro.schemaless_writer(datum, fastavro.parse_schema(schema), fields)
    return b"\0" + struct.pack(">I", number) + datum.getvalue()


def headers(**given):
    names = {name.replace("_", "-") if name == "content_type" else f"ce_{name}": text for name, text in given.items()}
    return tuple((name, text.encode()) for name, text in names.items() if text is not None)


def keys_of(partition, count):
    return [key for key in range(1, 1000) if partition_of(str(key).encode(), PARTITIONS) == partition][:count]


def pair(order, command_id, offset, number, **changed):
    """A command and the event that it caused, on the partition of the key."""
    key = str(order).encode()
    partition = partition_of(key, PARTITIONS)
    common = {"specversion": "1.0", "source": "/order-svc", "subject": str(order), "time": "2026-01-02T03:04:05.678Z"}
    common["content_type"] = "application/avro"
    command = headers(id=str(command_id), type="orderlog.order.PlaceOrder", **common)
    event = {
        "id": str(command_id + 5000),
        "type": "orderlog.order.OrderPlaced",
        "sequence": f"{number:019}",
        "correlationid": str(order),
        "causationid": str(command_id),
        "cause": f"t.order.commands/{partition}/{offset}/",
        **common,
        **changed,
    }
    fields = {"order_id": order, "command_id": command_id}
    return [
        Record("order.commands", partition, offset, key, value(1, **fields), command),
        Record("order.events", partition, offset, key, value(2, **fields), headers(**event)),
    ]


def good(**changed):
    """Three orders on partition 1; `changed` are headers of the last event."""
    records = []
    for index, order in enumerate(keys_of(1, 3)):
        records += pair(order, 100 + index, index, index + 1, **(changed if index == 2 else {}))
    return records


def findings(records, settled=True):
    judge = Judge(PARTITIONS, Shelf().decode, "t.")
    for record in sorted(records, key=lambda record: (record.topic, record.partition, record.offset)):
        judge.take(record)
    return judge.finish(settled).findings


class ReadLog(unittest.TestCase):
    def only(self, records, *words):
        found = findings(records)
        self.assertTrue(found, "nothing was found")
        self.assertTrue(any(all(word in line for word in words) for line in found), found)

    def test_the_hash_is_javas(self):
        # From Apache Kafka's own test of Utils.murmur2.
        known = {
            b"21": -973932308,
            b"foobar": -790332482,
            b"a-little-bit-long-string": -985981536,
            b"a-little-bit-longer-string": -1486304829,
            b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
            b"abc": 479470107,
        }
        for key, java in known.items():
            self.assertEqual(murmur2(key), java & 0xFFFFFFFF, key)

    def test_a_good_log_has_no_findings(self):
        self.assertEqual(findings(good()), [])

    def test_a_hole_is_found(self):
        self.only(good(sequence=f"{4:019}"), "order.events/1/2", "a hole: sequence 4 follows 2")

    def test_a_log_that_begins_late_is_found(self):
        self.only(good()[4:], "a hole: sequence 3 follows 0")

    def test_a_repeat_is_passed_over_and_a_false_one_is_found(self):
        records = good()
        repeat = replace(records[1], offset=3)
        self.assertEqual(findings([*records, repeat]), [])
        self.only([*records, replace(repeat, value=records[3].value)], "repeats sequence 1", "with other bytes")
        self.only([*records, replace(repeat, headers=repeat.headers[1:])], "repeats sequence 1", "with other bytes")

    def test_a_sequence_has_19_digits(self):
        self.only(good(sequence="3"), "not 19 digits")
        self.only(good(sequence=None), "not 19 digits")
        self.only(good(sequence="0" * 19), "not 19 digits")

    def test_trailing_bytes_are_found(self):
        records = good()
        records[5] = replace(records[5], value=records[5].value + b"\0")
        self.only(records, "order.events/1/2", "1 bytes are left over")

    def test_damaged_values_are_found(self):
        for bad in (b"", b"\0\0\0\0", b"\1\0\0\0\2\2\2", value(2, order_id=1, command_id=2)[:-1], b"\0\0\0\0\7\2"):
            records = good()
            records[5] = replace(records[5], value=bad)
            self.only(records, "does not decode")
        records[5] = replace(records[5], value=None)
        self.only(records, "it has no value")

    def test_a_schema_of_another_topic_is_found(self):
        records = good()
        fields = {"order_id": keys_of(1, 3)[2], "command_id": 102}
        records[5] = replace(records[5], value=value(1, **fields))
        self.only(records, "does not decode", "is registered as")

    def test_a_wrong_partition_is_found(self):
        self.only([replace(record, partition=0) for record in good()], "murmur2 puts the key", "on partition 1 of 2")

    def test_wrong_keys_are_found(self):
        records = good()
        self.only([*records[:5], replace(records[5], key=None)], "it has no key")
        other = str(keys_of(1, 4)[3])
        subject = dict(records[5].headers) | {"ce_subject": other.encode()}
        self.only([*records[:5], replace(records[5], key=other.encode(), headers=tuple(subject.items()))], "is about")

    def test_wrong_attributes_are_found(self):
        wrong = {
            "id": ["0", "x", None, "5100", "100"],
            "type": ["orderlog.order.OrderRejected", None],
            "source": ["/payment-svc", None],
            "subject": ["1", None],
            "specversion": ["0.3", None],
            "time": ["2026-01-02T03:04:05Z", None],
            "correlationid": ["1", None],
            "causationid": ["1", "x", None],
            "cause": ["", "somewhere", None, "t.order.commands/1/02/", "t.order.commands/1/9/", "order.commands/1/2/"],
            "content_type": ["application/json", None],
        }
        for name, texts in wrong.items():
            for text in texts:
                with self.subTest(name=name, text=text):
                    self.only(good(**{name: text}), "order.events/1/2")

    def test_a_command_has_one_event(self):
        records = good()
        self.only(records[:5], "order.commands/1/2", "has caused no event")
        self.assertEqual(findings(records[:5], settled=False), [])
        self.only(good(cause="t.order.commands/1/1/", causationid="101"), "t.order.commands/1/1/ caused")

    def test_a_command_appended_twice_is_no_finding_and_a_stolen_id_is(self):
        records = good()
        self.assertEqual(findings([*records, replace(records[4], offset=3)]), [])
        self.only([*records, replace(records[4], offset=3, value=records[2].value)], "with other bytes")

    def test_a_command_carries_its_id(self):
        records = good()
        fields = {"order_id": keys_of(1, 3)[2], "command_id": 7}
        self.only([*records[:4], replace(records[4], value=value(1, **fields)), records[5]], "is not ce_id 102")


if __name__ == "__main__":
    unittest.main()
