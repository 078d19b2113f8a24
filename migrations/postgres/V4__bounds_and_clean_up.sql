-- Mails that were sent or given up, to be found when they are to go.
CREATE INDEX mails_by_expiry ON mails (coalesce(expires_at, 0)) WHERE next_attempt_at IS NULL;

-- The bound that each gateway keeps, in milliseconds: a new key signs when the one with the greatest must
-- have read it. Last, since gateways that run cannot move their beats from here on.
ALTER TABLE gateways ADD COLUMN max_staleness BIGINT NOT NULL DEFAULT 0;
