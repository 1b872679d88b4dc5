-- What an operator watches: payments without an outcome by age, and webhooks that were given up. Both are few among many.

CREATE INDEX payments_unsettled ON payments (status, created_at)
    WHERE status IN ('pending', 'unknown', 'incomplete', 'refunding');

CREATE INDEX webhooks_failed ON webhooks (shop_id) WHERE state = 'failed';
