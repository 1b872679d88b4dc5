-- An erasure removes the personal data from stored responses and from webhooks that were sent.

CREATE INDEX idempotency_keys_by_location ON idempotency_keys (shop_id, location) WHERE location IS NOT NULL;

CREATE INDEX webhooks_by_subscription ON webhooks (shop_id, subscription_id, id);

CREATE INDEX erased_customers_by_time ON erased_customers (erased_at);
