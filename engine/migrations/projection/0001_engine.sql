-- The part of every service's projection that the engine folds.

-- Every command that an own event settled, for ever: finds repeats and old idempotency keys, answers waiters.
-- outcome: null when the command did what it asked for, otherwise the reason.
CREATE TABLE commands (
    command_id  bigint PRIMARY KEY,
    caller      text,
    key_hash    text,
    fingerprint text,
    partition   int NOT NULL,
    sequence    bigint NOT NULL,
    outcome     text,
    event_type  text NOT NULL,
    subject     bigint NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX commands_by_key ON commands (caller, key_hash) WHERE key_hash IS NOT NULL;

-- How far the read model of a foreign topic is folded.
CREATE TABLE read_models (
    topic         text NOT NULL,
    partition     int NOT NULL,
    last_sequence bigint NOT NULL,
    next_offset   bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
