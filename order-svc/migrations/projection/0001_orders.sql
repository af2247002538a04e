-- Orders: the fold of order.events. One row per order that was ever placed or rejected.
--
-- lines: as JSON of the API, with unit prices, or without them in a rejected order; text, since no statement looks into
-- them: jsonb is parsed when a row is written, printed when it is read, and larger. reason: of a cancellation or
-- rejection. expires_*: the timer of an open order and the event that set it; null in a final one.
CREATE TABLE orders (
    order_id                bigint PRIMARY KEY,
    partition               int NOT NULL,
    status                  text NOT NULL,
    version                 bigint NOT NULL,
    customer_id             text NOT NULL,
    lines                   text NOT NULL,
    total_amount            bigint,
    currency                text,
    reason                  text,
    customer_reason         text,
    pay_by                  timestamptz,
    placed_at               timestamptz NOT NULL,
    updated_at              timestamptz NOT NULL,
    last_sequence           bigint NOT NULL,
    expires_at              timestamptz,
    expires_set_by          bigint,
    expires_set_by_sequence bigint
);

-- The timers of a processor, the earliest first.
CREATE INDEX orders_expiring ON orders (partition, expires_at) WHERE expires_at IS NOT NULL;
-- A customer's list, newest first.
CREATE INDEX orders_of_customer ON orders (customer_id, order_id DESC);
-- An operator's list of one status. Open orders are found by their timers, confirmed ones along the primary key, as nearly
-- all are; so an order that goes well pays for no index of its status.
CREATE INDEX orders_that_failed ON orders (status, order_id DESC) WHERE status IN ('CANCELLED', 'EXPIRED', 'REJECTED');

-- The catalogue: a read model, the fold of the product facts of inventory.events. Delisted products stay, for when they
-- come back.
CREATE TABLE catalogue (
    product_id   bigint PRIMARY KEY,
    name         text NOT NULL,
    price_amount bigint NOT NULL,
    currency     text NOT NULL,
    listed       boolean NOT NULL
);

-- The events of one order that commands caused, refusals among them (`commands` is the engine's, folded for all services).
CREATE INDEX commands_by_subject ON commands (subject);
