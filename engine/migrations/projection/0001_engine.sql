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

-- Records that could not be applied: held ones, those that wait behind them, and dead ones. What the letters on
-- <crate>.retry and <crate>.dlq say; a row goes when an own event or a letter settles it.
-- number: the order within a key; 0 for a record that was dead at once. key: null when it is no aggregate's ID.
-- record: the original key, value, headers and time. effect: names an effect whose attempts are used up; the row is then
-- about that, its source is the own event that asked for it, and it goes when the state asks for it no more. '' of a record.
CREATE TABLE held (
    partition       int NOT NULL,
    topic           text NOT NULL,
    source_offset   bigint NOT NULL,
    source_sequence bigint,
    number          bigint NOT NULL,
    key             bigint,
    event_type      text,
    schema_id       bigint,
    class           text NOT NULL,
    code            text NOT NULL,
    message         text NOT NULL,
    dead            boolean NOT NULL,
    attempts        int NOT NULL,
    first_at        timestamptz NOT NULL,
    last_at         timestamptz NOT NULL,
    record          bytea NOT NULL,
    effect          text NOT NULL,
    PRIMARY KEY (partition, topic, source_offset, effect)
);
