-- The time from which the periods of a subscription are counted in the server's time zone: billing_cycle_anchor is the start
-- of anchor_period. anchor_day is the day of the month if the anchor is the end of a shorter month. All are null before the first
-- charge, and in rows of the previous release, which counts from anchored_at.
ALTER TABLE subscriptions ADD COLUMN billing_cycle_anchor BIGINT;
ALTER TABLE subscriptions ADD COLUMN anchor_period BIGINT;
ALTER TABLE subscriptions ADD COLUMN anchor_day BIGINT;
