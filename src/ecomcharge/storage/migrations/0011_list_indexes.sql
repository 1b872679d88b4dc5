-- For lists by a filter: each filter, or combination of filters, that can select many records has an index that ends with the id.

CREATE INDEX subscriptions_by_state ON subscriptions (shop_id, state, id);
CREATE INDEX subscriptions_by_plan_and_state ON subscriptions (shop_id, plan_id, state, id);

CREATE INDEX events_by_type ON events (shop_id, type, id);
CREATE INDEX events_in_order ON events (shop_id, object_id, id);

CREATE INDEX webhooks_undelivered ON webhooks (shop_id, state, id) WHERE state <> 'delivered';
