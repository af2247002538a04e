-- What the toy service folds: per key a sum, what was applied in which order, a timer and two effects.
-- Times in milliseconds since 1970.
CREATE TABLE entries (
    key           bigint PRIMARY KEY,
    partition     int NOT NULL,
    total         bigint NOT NULL,
    history       text[] NOT NULL,
    due_at        bigint,
    due_event     bigint,
    due_sequence  bigint,
    call_event    bigint,
    call_sequence bigint,
    text_event    bigint,
    text_sequence bigint
);

-- A read model: the last news per key of the foreign topic.
CREATE TABLE news (
    key  bigint PRIMARY KEY,
    last bigint NOT NULL
);
