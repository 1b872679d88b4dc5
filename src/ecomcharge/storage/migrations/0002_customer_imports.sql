-- How far each imported file has come: the digest of its first so many lines, kept once they are in.
CREATE TABLE customer_imports (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    digest      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    lines       BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, digest)
) /*sqlite: WITHOUT ROWID */;
