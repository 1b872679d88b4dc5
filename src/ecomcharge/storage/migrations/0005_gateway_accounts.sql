-- Every account that a shop has, or had, at a gateway. Ids count from 1 in each shop and are not reused: a payment
-- keeps the id of the account that it was charged at. sealed_key is NULL once the account is forgotten.

CREATE TABLE gateway_accounts (
    shop_id      BIGINT NOT NULL REFERENCES shops (shop_id),
    id           TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    gateway      TEXT   NOT NULL,
    url          TEXT   NOT NULL,
    gateway_user TEXT   NOT NULL,
    sealed_key   TEXT,
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

-- The account of new subscriptions. The previous release reads it from gateway_url, gateway_user and sealed_gateway_key.
ALTER TABLE shops ADD COLUMN gateway_account TEXT;
-- When an operator last chose the shop's gateway; NULL: never.
ALTER TABLE shops ADD COLUMN gateway_chosen_at BIGINT;

-- NULL in these two is the shop's first account, '1': rows of the previous release.
ALTER TABLE subscriptions ADD COLUMN gateway_account TEXT;
ALTER TABLE payments ADD COLUMN gateway_account TEXT;

INSERT INTO gateway_accounts (shop_id, id, gateway, url, gateway_user, sealed_key, created_at)
SELECT shop_id, '1', 'begateway', gateway_url, gateway_user, sealed_gateway_key, created_at
FROM shops WHERE sealed_gateway_key IS NOT NULL;

UPDATE shops SET gateway_account = '1', gateway_chosen_at = created_at WHERE sealed_gateway_key IS NOT NULL;
