-- One process moves the sandbox clock at a time: it has a lease on the clock until leased_until (real time) and renews it.
-- move_id is the move that has the lease. Earlier releases do not use these columns.

ALTER TABLE sandbox_clock ADD COLUMN move_id TEXT;
ALTER TABLE sandbox_clock ADD COLUMN leased_until BIGINT NOT NULL DEFAULT 0;

-- Progress of each move. from_at, to_at and now_at are times of the sandbox clock, null while the move waits for another one;
-- created_at, leased_until and ended_at are real times.
CREATE TABLE clock_moves (
    id           TEXT   NOT NULL /*postgresql: COLLATE "C" */,
    from_at      BIGINT,
    to_at        BIGINT,
    now_at       BIGINT,
    created_at   BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    ended_at     BIGINT,
    error        TEXT,
    PRIMARY KEY (id)
) /*sqlite: WITHOUT ROWID */;

-- Number of attempts that were due while the clock was moved and were not made, because the receiver could not be reached
-- earlier in the move. attempts counts the attempts that were made.
ALTER TABLE webhooks ADD COLUMN attempts_skipped BIGINT NOT NULL DEFAULT 0;
