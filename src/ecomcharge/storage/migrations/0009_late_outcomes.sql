-- What is learnt of a payment after it ended. check_at: when the payment is to be looked up, or refunded, again (UTC milliseconds
-- of the clock that due dates use). check_attempts counts the look-ups and refunds that came to nothing.
ALTER TABLE payments ADD COLUMN check_at BIGINT;
ALTER TABLE payments ADD COLUMN check_attempts BIGINT NOT NULL DEFAULT 0;

CREATE INDEX payments_to_check ON payments (check_at) WHERE check_at IS NOT NULL;

-- The sandbox gateway's books: when a charge was given back.
ALTER TABLE sandbox_charges ADD COLUMN refunded_at BIGINT;

-- Until when the first request with the key may still run (UTC milliseconds of the real clock, also in a sandbox).
ALTER TABLE idempotency_keys ADD COLUMN running_until BIGINT;
