-- Outcomes that become known after a payment ended. check_at: when the payment is looked up, or its refund is repeated (UTC
-- milliseconds of the clock that due dates use). check_attempts counts the look-ups and refunds without a result.
ALTER TABLE payments ADD COLUMN check_at BIGINT;
ALTER TABLE payments ADD COLUMN check_attempts BIGINT NOT NULL DEFAULT 0;

CREATE INDEX payments_to_check ON payments (check_at) WHERE check_at IS NOT NULL;

-- When the sandbox gateway refunded a charge.
ALTER TABLE sandbox_charges ADD COLUMN refunded_at BIGINT;

-- Until when the first request with the key may be in progress (UTC milliseconds of the real clock, in a sandbox too).
ALTER TABLE idempotency_keys ADD COLUMN running_until BIGINT;
