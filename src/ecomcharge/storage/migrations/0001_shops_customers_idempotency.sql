-- Times are UTC milliseconds. shop_id is the first column of every key, so that a distributed engine can place a shop on a shard.

CREATE TABLE shops (
    shop_id    BIGINT NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    closed_at  BIGINT
);

-- A secret key is stored as a keyed hash, for comparison, and encrypted under the master key, because it signs webhooks.
CREATE TABLE shop_keys (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    key_hash   TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    sealed_key TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    PRIMARY KEY (shop_id, key_hash)
) /*sqlite: WITHOUT ROWID */;

CREATE TABLE customers (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    id          TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    first_name  TEXT,
    last_name   TEXT,
    address     TEXT,
    country     TEXT,
    city        TEXT,
    zip         TEXT,
    state       TEXT,
    phone       TEXT,
    email       TEXT,
    ip          TEXT,
    external_id TEXT,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX customers_by_email ON customers (shop_id, email, id);

CREATE INDEX customers_by_external_id ON customers (shop_id, external_id, id) WHERE external_id IS NOT NULL;

-- status and body are null while the first request with the key is being processed.
CREATE TABLE idempotency_keys (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    key         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    claim       TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    fingerprint TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    status      BIGINT,
    location    TEXT,
    body        TEXT,
    PRIMARY KEY (shop_id, key)
) /*sqlite: WITHOUT ROWID */;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (shop_id, created_at);
