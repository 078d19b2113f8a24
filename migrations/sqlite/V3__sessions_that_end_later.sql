-- The rows of ended sessions are removed later, in pieces, so they outlive the account: no foreign key.
CREATE TABLE live_sessions (
    id                 BLOB PRIMARY KEY NOT NULL,
    user_id            BLOB NOT NULL,
    generation         INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    authenticated_at   INTEGER NOT NULL,
    last_used_at       INTEGER NOT NULL,
    ends_at            INTEGER NOT NULL,
    refresh_expires_at INTEGER NOT NULL,
    rotated_at         INTEGER NOT NULL,
    refresh_number     INTEGER NOT NULL,
    current_hash       BLOB NOT NULL,
    previous_hash      BLOB,
    nonce              BLOB NOT NULL,
    access_exp_max     INTEGER NOT NULL
) STRICT;
INSERT INTO live_sessions SELECT id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at,
    refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, access_exp_max FROM sessions;
DROP TABLE sessions;
ALTER TABLE live_sessions RENAME TO sessions;
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_expiry ON sessions (refresh_expires_at);
-- Whose sessions below a generation are dead and still have rows.
CREATE TABLE session_sweeps (
    user_id    BLOB PRIMARY KEY NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

-- Whose name it was: its former holder may take it back. Null where the account is gone.
ALTER TABLE retired_names ADD COLUMN user_id BLOB;
