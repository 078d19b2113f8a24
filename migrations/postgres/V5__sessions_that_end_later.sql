-- The rows of ended sessions are removed later, in pieces, so they outlive the account: no foreign key.
ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_fkey;
-- Whose sessions below a generation are dead and still have rows.
CREATE TABLE session_sweeps (
    user_id    UUID PRIMARY KEY NOT NULL,
    generation BIGINT NOT NULL
);
-- The session that was used longest ago, where an account has too many.
DROP INDEX sessions_by_user;
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);

-- Whose name it was: its former holder may take it back. Null where the account is gone.
ALTER TABLE retired_names ADD COLUMN user_id UUID;
