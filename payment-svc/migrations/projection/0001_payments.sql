-- Payments: the fold of payment.events. One row per order whose money was asked for or given up.
--
-- call_*: the call to the gateway that the status asks for (charge, cancel, refund) and the event that asked; null when
-- nothing is to be called.
CREATE TABLE payments (
    order_id         bigint PRIMARY KEY,
    partition        int NOT NULL,
    status           text NOT NULL,
    customer_id      text NOT NULL,
    total_amount     bigint NOT NULL,
    currency         text NOT NULL,
    payment_method   text,
    pay_by           timestamptz,
    pay_url          text,
    taken_amount     bigint,
    taken_currency   text,
    call_kind        text,
    call_set_by      bigint,
    call_sequence    bigint
)
-- Every row is updated once or more: with room on its page, that page is the only one that changes.
WITH (fillfactor = 70);

-- The calls that a new owner of a processor has to make.
CREATE INDEX payments_calls ON payments (partition, call_sequence) WHERE call_kind IS NOT NULL;
