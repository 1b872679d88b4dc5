-- parked_at: the due date of a closed shop's subscription, put aside so that no worker finds it, until the shop opens again.

ALTER TABLE subscriptions ADD COLUMN parked_at BIGINT;

CREATE INDEX subscriptions_parked ON subscriptions (shop_id) WHERE parked_at IS NOT NULL;
