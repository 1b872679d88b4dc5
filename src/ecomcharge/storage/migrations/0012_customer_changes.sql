-- Change customers, and create one customer for each external id on request.

-- The version of the record and its time after the change whose response is stored; NULL for other responses.
ALTER TABLE idempotency_keys ADD COLUMN version BIGINT;
ALTER TABLE idempotency_keys ADD COLUMN updated_at BIGINT;

-- Locks: a transaction that may create the customer of an external id inserts a row and deletes it again. Until it ends, another
-- transaction that inserts the same row waits.
CREATE TABLE external_id_locks (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    external_id TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    PRIMARY KEY (shop_id, external_id)
) /*sqlite: WITHOUT ROWID */;
