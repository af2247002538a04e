-- What the engine keeps beside the projection: owners, positions, sequences, outbox, scheduling, leases, schema IDs.

CREATE TABLE processors (
    partition   int PRIMARY KEY,
    epoch       bigint NOT NULL,
    batch       bigint NOT NULL,
    owner       text NOT NULL,
    assigned_at timestamptz NOT NULL
);

CREATE TABLE positions (
    partition     int NOT NULL,
    topic         text NOT NULL,
    next_offset   bigint NOT NULL,
    last_sequence bigint NOT NULL,
    PRIMARY KEY (partition, topic)
);

-- sequence: the last one assigned; acked_*: what Kafka has acknowledged (0 and -1 before the first).
CREATE TABLE outputs (
    partition      int NOT NULL,
    topic          text NOT NULL,
    sequence       bigint NOT NULL,
    acked_sequence bigint NOT NULL,
    acked_offset   bigint NOT NULL,
    PRIMARY KEY (partition, topic)
);

CREATE TABLE outbox (
    partition int NOT NULL,
    batch     bigint NOT NULL,
    records   bytea NOT NULL,
    PRIMARY KEY (partition, batch)
);
-- Rows live for milliseconds, and pglz costs more than it saves. lz4 saves more than it costs: most of what a service writes
-- is its outbox, and headers repeat. A server may be built without it.
DO $$ BEGIN
    ALTER TABLE outbox ALTER COLUMN records SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    ALTER TABLE outbox ALTER COLUMN records SET STORAGE EXTERNAL;
END $$;
-- Dead rows must go at once.
ALTER TABLE outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);

-- Tries of effects: scheduling, outside the fold. failed_at: when the first of them failed.
CREATE TABLE effects (
    partition   int NOT NULL,
    key         bigint NOT NULL,
    kind        text NOT NULL,
    attempts    int NOT NULL,
    next_try_at timestamptz NOT NULL,
    pending     boolean NOT NULL,
    failed_at   timestamptz,
    first_error text,
    last_error  text,
    PRIMARY KEY (partition, key, kind)
);
CREATE INDEX effects_by_key ON effects (key);

-- mark_ms: IDs of this instance number are issued below this time only (milliseconds since 1970).
CREATE TABLE leases (
    service  int NOT NULL,
    instance int NOT NULL,
    holder   text,
    mark_ms  bigint NOT NULL,
    PRIMARY KEY (service, instance)
);

CREATE TABLE schema_ids (
    subject     text NOT NULL,
    version     int NOT NULL,
    fingerprint text NOT NULL,
    id          bigint NOT NULL,
    PRIMARY KEY (subject, version)
);

-- After a recovery HTTP refuses writes until the processors have read their commands topics up to here.
CREATE TABLE barriers (
    topic      text NOT NULL,
    partition  int NOT NULL,
    end_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

CREATE TABLE facts (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- What operators want done about held and dead records, and dead effects: inputs of the owning processor, which deletes
-- them in the batch that does it. act: redrive or discard. source: topic on the broker, partition, offset. effect: as in
-- held.
CREATE TABLE acts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition     int NOT NULL,
    topic         text NOT NULL,
    source_offset bigint NOT NULL,
    effect        text NOT NULL,
    act           text NOT NULL,
    sub           text NOT NULL,
    reason        text NOT NULL,
    UNIQUE (partition, topic, source_offset, effect)
);
