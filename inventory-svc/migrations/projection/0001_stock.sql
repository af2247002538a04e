-- Stock and reservations: the fold of inventory.events.

-- One row per product that was ever touched. Partitions meet here: the catalogue's columns are written by the product's
-- own partition, the sums are added to by all, in any order during a rebuild, so that nothing is checked here (H14).
-- name is null until the product is listed for the first time. received + adjusted = on_hand + sold.
CREATE TABLE products (
    product_id   bigint PRIMARY KEY,
    name         text,
    price_amount bigint,
    currency     text,
    listed       boolean NOT NULL DEFAULT false,
    on_hand      bigint NOT NULL DEFAULT 0,
    reserved     bigint NOT NULL DEFAULT 0,
    sold         bigint NOT NULL DEFAULT 0,
    received     bigint NOT NULL DEFAULT 0,
    adjusted     bigint NOT NULL DEFAULT 0
)
-- No column but the key is indexed: with room on the page, adding to a sum leaves the index alone.
WITH (fillfactor = 70);

-- One row per order that was ever heard of. customer_id and lines (JSON, with unit prices; text, since no statement looks
-- into them) are there while it is RESERVED: what a sale or release will take them from.
CREATE TABLE reservations (
    order_id    bigint PRIMARY KEY,
    partition   int NOT NULL,
    status      text NOT NULL,
    customer_id text,
    lines       text
)
-- Nearly every row is updated once, to a shorter one: with some room on the page, that leaves the index alone.
WITH (fillfactor = 80);
