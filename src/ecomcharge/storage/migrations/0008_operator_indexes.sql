-- For the metrics: payments without an outcome by age, and webhooks that were given up. Both are a small part of their tables.

CREATE INDEX payments_unsettled ON payments (status, created_at)
    WHERE status IN ('pending', 'unknown', 'incomplete', 'refunding');

CREATE INDEX webhooks_failed ON webhooks (shop_id) WHERE state = 'failed';
