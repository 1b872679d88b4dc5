-- Correct, find and erase customers.

-- metadata: a JSON object of texts; NULL if it is empty. version is incremented by every change. updated_at is NULL until the
-- first change: the creation time is in the id. search_terms: the terms of the search index, separated by blanks; NULL if the row
-- is not indexed yet, because an earlier release wrote it.
ALTER TABLE customers ADD COLUMN metadata TEXT;
ALTER TABLE customers ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE customers ADD COLUMN updated_at BIGINT;
ALTER TABLE customers ADD COLUMN search_terms TEXT;

CREATE INDEX customers_not_indexed ON customers (shop_id, id) WHERE search_terms IS NULL;

-- The search index finds e-mail addresses too. Until the upgrade is complete, a server of the previous release reads all customers
-- of a shop to find one by e-mail.
DROP INDEX customers_by_email;

-- SQLite: the row number is the number of the customer's id. Each term begins with the id of its shop, so two shops may have
-- customers with the same id. A deletion names the terms, and secure-delete removes them from the index at once. Each commit adds a
-- segment to the index. SQLite merges 8 segments at a time instead of 4: in commits of 16 customers, the index then takes 7 µs per
-- customer instead of 16.
/*sqlite:
CREATE VIRTUAL TABLE customer_search USING fts5(
    terms, content='', columnsize=0, detail=none, tokenize="ascii tokenchars '!""#$%&''()*+,-./:;<=>?@[\]^_`{|}~'"
);
INSERT INTO customer_search (customer_search, rank) VALUES ('secure-delete', 1);
INSERT INTO customer_search (customer_search, rank) VALUES ('automerge', 8);
*/
/*postgresql:
CREATE INDEX customers_by_term ON customers USING GIN (array_to_tsvector(string_to_array(search_terms, ' ')));
*/

-- An erased customer has no row in customers. The shop keeps its id and the number of its last event.
CREATE TABLE erased_customers (
    shop_id    BIGINT NOT NULL REFERENCES shops (shop_id),
    id         TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    version    BIGINT NOT NULL,
    erased_at  BIGINT NOT NULL,
    PRIMARY KEY (shop_id, id)
) /*sqlite: WITHOUT ROWID */;

-- The customer of the subscription, if it was erased; customer_id is NULL then.
ALTER TABLE subscriptions ADD COLUMN erased_customer_id TEXT /*postgresql: COLLATE "C" */;

CREATE INDEX subscriptions_by_erased_customer ON subscriptions (shop_id, erased_customer_id, id)
    WHERE erased_customer_id IS NOT NULL;
