-- One process moves the sandbox clock at a time: it holds the clock until leased_until, in real time, and renews that.
-- move_id names the move that holds it. Both stay empty for a release that does not know them.

ALTER TABLE sandbox_clock ADD COLUMN move_id TEXT;
ALTER TABLE sandbox_clock ADD COLUMN leased_until BIGINT NOT NULL DEFAULT 0;

-- How far each move came. from_at, to_at and now_at are times of the sandbox clock, null while the move waits for another;
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

-- Attempts of the retry schedule that were due while the clock was moved and were not made, because the receiver could not
-- be reached before. attempts counts those that were made.
ALTER TABLE webhooks ADD COLUMN attempts_skipped BIGINT NOT NULL DEFAULT 0;
