-- What became of the commands of HTTP clients (schema engine): the row is written before the command is appended, so
-- that a crash between the two leaves everything that is needed to append the same bytes again (H17). It is a shortcut
-- beside projection.commands, which finds every key for ever; it alone knows the keys that are not decided yet.
CREATE TABLE idempotency (
    -- The token's sub, or "gateway".
    caller      text COLLATE "C" NOT NULL,
    -- SHA-256 of method, path as sent and bare key, hex.
    key_hash    text COLLATE "C" NOT NULL,
    -- SHA-256 of route and canonical body, hex: the same key with another one is refused.
    fingerprint text NOT NULL,
    -- The aggregate's ID and the command's: a take-over uses the same ones.
    subject     bigint NOT NULL,
    command_id  bigint NOT NULL,
    -- The command as it is appended: headers as a JSON list of name and value, value in the wire format. Cleared with
    -- the answer, when the log has them.
    headers     text,
    value       bytea,
    -- When the last owner began; after 10 s without an answer the next request takes over.
    started_at  timestamptz NOT NULL DEFAULT now(),
    -- The 202, byte for byte; null while the command is not known to be in the log.
    location    text,
    answer      bytea,
    PRIMARY KEY (caller, key_hash)
)
-- Every row is updated once, soon after it was written: room on its page makes that a cheap update.
WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);

-- Who asked for a thing that is not in the projection yet: it reads as accepted.
CREATE INDEX idempotency_by_subject ON idempotency (subject);
