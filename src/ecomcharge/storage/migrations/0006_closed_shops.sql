-- parked_at: the due date of a subscription of a closed shop, moved here from due_at so that no billing worker finds it.

ALTER TABLE subscriptions ADD COLUMN parked_at BIGINT;

CREATE INDEX subscriptions_parked ON subscriptions (shop_id) WHERE parked_at IS NOT NULL;
