-- Every version of the rows that say who owns a processor, where it stands, and what is on a shelf. Insert-only; the checker
-- reads it (I3, I10). IDs are given under the row's lock, so that those of one row are in its order. tx: what was committed
-- together. SECURITY DEFINER: a service's role need not know this schema.
CREATE SCHEMA audit;
CREATE TABLE audit.processors (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx        bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    op        text NOT NULL,
    partition int NOT NULL,
    epoch     bigint NOT NULL,
    batch     bigint NOT NULL,
    owner     text NOT NULL
);
CREATE TABLE audit.positions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tx            bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    op            text NOT NULL,
    partition     int NOT NULL,
    topic         text NOT NULL,
    old_offset    bigint,
    old_sequence  bigint,
    next_offset   bigint NOT NULL,
    last_sequence bigint NOT NULL
);

CREATE FUNCTION audit.keep_processor() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE kept engine.processors := COALESCE(NEW, OLD);
BEGIN
    INSERT INTO audit.processors (op, partition, epoch, batch, owner)
    VALUES (TG_OP, kept.partition, kept.epoch, kept.batch, kept.owner);
    RETURN NULL;
END $$;
CREATE FUNCTION audit.keep_position() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE kept engine.positions := COALESCE(NEW, OLD);
BEGIN
    INSERT INTO audit.positions (op, partition, topic, old_offset, old_sequence, next_offset, last_sequence)
    VALUES (TG_OP, kept.partition, kept.topic, OLD.next_offset, OLD.last_sequence, kept.next_offset, kept.last_sequence);
    RETURN NULL;
END $$;
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON engine.processors
FOR EACH ROW EXECUTE FUNCTION audit.keep_processor();
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON engine.positions
FOR EACH ROW EXECUTE FUNCTION audit.keep_position();

-- One service has products.
DO $outer$ BEGIN
    IF to_regclass('projection.products') IS NOT NULL THEN
        CREATE TABLE audit.products (
            id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            tx         bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
            at         timestamptz NOT NULL DEFAULT clock_timestamp(),
            op         text NOT NULL,
            product_id bigint NOT NULL,
            on_hand    bigint NOT NULL,
            reserved   bigint NOT NULL,
            sold       bigint NOT NULL
        );
        CREATE FUNCTION audit.keep_product() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE kept projection.products := COALESCE(NEW, OLD);
        BEGIN
            INSERT INTO audit.products (op, product_id, on_hand, reserved, sold)
            VALUES (TG_OP, kept.product_id, kept.on_hand, kept.reserved, kept.sold);
            RETURN NULL;
        END $$;
        CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON projection.products
        FOR EACH ROW EXECUTE FUNCTION audit.keep_product();
    END IF;
END $outer$;
