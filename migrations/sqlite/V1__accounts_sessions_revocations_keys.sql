-- Times are milliseconds since the Unix epoch; ids are the 16 bytes of a UUID.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE users (
    id             BLOB PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    -- What the name looks like (UTS 39): no two accounts may look alike.
    skeleton       TEXT NOT NULL UNIQUE,
    email          TEXT,
    password_hash  TEXT NOT NULL,
    roles          TEXT NOT NULL,
    disabled       INTEGER NOT NULL DEFAULT 0,
    generation     INTEGER NOT NULL DEFAULT 1,
    -- The latest expiry of any access token of this user: a revocation outlives it.
    access_exp_max INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL
) STRICT;

-- Deleted and former names are never given out again.
CREATE TABLE retired_names (
    skeleton   TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    retired_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id                 BLOB PRIMARY KEY NOT NULL,
    user_id            BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
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
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (refresh_expires_at);

-- The log that every mirror is a copy of. One writer at a time makes `seq` the order of commits.
CREATE TABLE revocations (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    kind       INTEGER NOT NULL,
    id         BLOB NOT NULL,
    generation INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_expiry ON revocations (expires_at);
CREATE INDEX revocations_by_id ON revocations (id);

CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY NOT NULL,
    algorithm   TEXT NOT NULL,
    public_key  BLOB NOT NULL,
    wrapped_key BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    -- Not before this time is it used to sign: every gateway has read it by then.
    signs_at    INTEGER NOT NULL,
    -- After this time it does not verify any more; null while it may still sign.
    expires_at  INTEGER
) STRICT;
