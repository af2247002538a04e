-- Notices: the fold of notification.events. One row per order and kind of notice.
--
-- email, sms: what became of the notice on that channel (PENDING, SENT, FAILED); null where it was not scheduled.
-- set_by*: the event that asks for it to be sent. All of these and due_at are null in a notice that was skipped.
CREATE TABLE notices (
    order_id        bigint NOT NULL,
    kind            text NOT NULL,
    partition       int NOT NULL,
    customer_id     text NOT NULL,
    skip_reason     text,
    due_at          timestamptz,
    total_amount    bigint,
    currency        text,
    reason          text,
    pay_by          timestamptz,
    pay_url         text,
    email           text,
    sms             text,
    set_by          bigint,
    set_by_sequence bigint,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (order_id, kind)
);

-- What a processor still has to send.
CREATE INDEX notices_pending ON notices (partition) WHERE email = 'PENDING' OR sms = 'PENDING';
