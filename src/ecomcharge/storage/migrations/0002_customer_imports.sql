-- How far each file was imported: digest is the hash of the first lines of the file, written when these lines are imported.
CREATE TABLE customer_imports (
    shop_id     BIGINT NOT NULL REFERENCES shops (shop_id),
    digest      TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    lines       BIGINT NOT NULL,
    imported_at BIGINT NOT NULL,
    PRIMARY KEY (shop_id, digest)
) /*sqlite: WITHOUT ROWID */;
