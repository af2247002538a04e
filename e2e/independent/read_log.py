"""Reads every topic of a stack and says whether the log keeps what DESIGN §3 and CONTRACT promise.

A second opinion: a Kafka client, an Avro decoder and a partitioner that the services do not use; nothing of Orderlog is
imported. It reads and never writes. Exit status 0 when nothing was found, 1 with one line per finding, 2 when it could
not read.

    pip install --target LIBRARIES -r requirements.txt; export PYTHONPATH=LIBRARIES
    python3 read_log.py --stack .orderlog/stack.json [--settled] [--json]
"""

import argparse
import io
import json
import struct
import sys
import urllib.error
import urllib.request
from collections import Counter

import fastavro
from kafka import KafkaConsumer, TopicPartition

from log_rules import COMMANDS, CRATES, EVENTS, Judge, Judgement, Record

TIMEOUT_SECONDS = 30


class Registry:
    """Schemas by ID, and the subjects that they are registered under."""

    def __init__(self, url: str):
        self.url, self.schemas, self.subjects = url.rstrip("/"), {}, {}

    def get(self, path: str):
        try:
            with urllib.request.urlopen(self.url + path, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"the registry answers {error.code} to {path}") from error

    def decode(self, topic: str, value: bytes) -> tuple[str, dict, int]:
        """Full name, fields and the number of bytes left over of a value in the Confluent wire format."""
        if len(value) < 5 or value[0] != 0:
            raise ValueError(f"no Confluent wire format: it begins with {value[:5].hex()}")
        (number,) = struct.unpack(">I", value[1:5])
        if number not in self.schemas:
            schema = json.loads(self.get(f"/schemas/ids/{number}")["schema"])
            self.schemas[number] = fastavro.parse_schema(schema)
            self.subjects[number] = self.get(f"/schemas/ids/{number}/subjects")
        schema = self.schemas[number]
        name = schema["name"]
        if f"{topic}-{name}" not in self.subjects[number]:
            raise ValueError(f"schema {number} is registered as {self.subjects[number]}, not as {topic}-{name}")
        datum = io.BytesIO(value[5:])
        try:
            fields = fastavro.schemaless_reader(datum, schema, None)
        # What a decoder raises on damaged bytes is of many kinds.
        except Exception as error:
            raise ValueError(f"schema {number} ({name}): {type(error).__name__} {error}") from error
        return name, fields, len(value) - 5 - datum.tell()


def own_topics() -> list[str]:
    """Every topic that a stack may have, without prefix."""
    return [*COMMANDS, *EVENTS, *(f"{crate}.{kind}" for crate in CRATES for kind in ("retry", "dlq"))]


def read(kafka: str, prefix: str, partitions: int, judge: Judge) -> None:
    """Gives the judge every record between the beginning and the ends at the time of the call."""
    # Damaged records must reach the rules, so only the broker's checksums are the client's business.
    consumer = KafkaConsumer(
        bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest", client_id="independent-reader"
    )
    existing = consumer.topics()
    lines = []
    for topic in own_topics():
        if prefix + topic not in existing:
            if topic in COMMANDS or topic in EVENTS:
                judge.out.findings.append(f"{topic}: there is no topic {prefix + topic}")
            continue
        found = consumer.partitions_for_topic(prefix + topic) or set()
        if found != set(range(partitions)):
            judge.out.findings.append(f"{topic}: its partitions are {sorted(found)}, not 0 to {partitions - 1}")
        for partition in sorted(found):
            lines.append(TopicPartition(prefix + topic, partition))
            judge.out.counts[topic, partition] = Counter(records=0)
    consumer.assign(lines)
    consumer.seek_to_beginning(*lines)
    ends = consumer.end_offsets(lines)
    open_lines = {line for line in lines if consumer.position(line) < ends[line]}
    while open_lines:
        batch = consumer.poll(timeout_ms=TIMEOUT_SECONDS * 1000)
        if not batch:
            raise TimeoutError(f"no record of {sorted(line.topic for line in open_lines)} for {TIMEOUT_SECONDS} s")
        for line, records in batch.items():
            for record in records:
                if record.offset < ends[line]:
                    headers = tuple((name, value) for name, value in record.headers)
                    topic = line.topic.removeprefix(prefix)
                    judge.take(Record(topic, line.partition, record.offset, record.key, record.value, headers))
        open_lines = {line for line in open_lines if consumer.position(line) < ends[line]}
    consumer.close()


def table(judgement: Judgement, last: dict) -> str:
    """One row per topic and partition."""
    rows = [("topic", "partition", "records", "repeats", "last sequence")]
    for (topic, partition), counts in judgement.counts.items():
        sequence = "" if topic in COMMANDS else str(last.get((topic, partition), 0))
        rows.append((topic, str(partition), str(counts["records"]), str(counts["repeats"]), sequence))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def as_json(judgement: Judgement, last: dict) -> str:
    partitions = [
        {
            "topic": topic,
            "partition": partition,
            "records": counts["records"],
            "repeats": counts["repeats"],
            "last_sequence": None if topic in COMMANDS else last.get((topic, partition), 0),
        }
        for (topic, partition), counts in judgement.counts.items()
    ]
    return json.dumps({"partitions": partitions, "types": judgement.types, "findings": judgement.findings})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", required=True, help="stack.json of the running stack")
    parser.add_argument("--settled", action="store_true", help="nothing is under way: every command has its event")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    options = parser.parse_args()
    with open(options.stack, encoding="utf-8") as file:
        stack = json.load(file)
    judge = Judge(stack["partitions"], Registry(stack["registry"]).decode, stack["topic_prefix"])
    try:
        read(stack["kafka"], stack["topic_prefix"], stack["partitions"], judge)
    except (OSError, TimeoutError) as error:
        print(f"the log cannot be read: {error}", file=sys.stderr)
        return 2
    judgement = judge.finish(options.settled)
    if options.json:
        print(as_json(judgement, judge.last))
    else:
        print(table(judgement, judge.last))
        for name, count in sorted(judgement.types.items()):
            print(f"{count:6}  {name}")
        for finding in judgement.findings:
            print(f"finding: {finding}")
    return 1 if judgement.findings else 0


if __name__ == "__main__":
    sys.exit(main())
