-- Times are milliseconds since the Unix epoch; ids are UUIDs.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value BYTEA NOT NULL
);

CREATE TABLE users (
    id             UUID PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    -- What the name looks like (UTS 39): no two accounts may look alike.
    skeleton       TEXT NOT NULL UNIQUE,
    email          TEXT,
    password_hash  TEXT NOT NULL,
    roles          TEXT NOT NULL,
    disabled       BOOLEAN NOT NULL DEFAULT FALSE,
    generation     BIGINT NOT NULL DEFAULT 1,
    -- The latest expiry of any access token of this user: a revocation outlives it.
    access_exp_max BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL
);

-- Deleted and former names are never given out again.
CREATE TABLE retired_names (
    skeleton   TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    retired_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    id                 UUID PRIMARY KEY NOT NULL,
    user_id            UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation         BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    authenticated_at   BIGINT NOT NULL,
    last_used_at       BIGINT NOT NULL,
    ends_at            BIGINT NOT NULL,
    refresh_expires_at BIGINT NOT NULL,
    rotated_at         BIGINT NOT NULL,
    refresh_number     BIGINT NOT NULL,
    current_hash       BYTEA NOT NULL,
    previous_hash      BYTEA,
    nonce              BYTEA NOT NULL,
    access_exp_max     BIGINT NOT NULL
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (refresh_expires_at);

-- The log that every mirror is a copy of. Sequence numbers are not the order of commits: readers
-- follow the transaction ids by snapshots.
CREATE TABLE revocations (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        XID8 NOT NULL DEFAULT pg_current_xact_id(),
    kind       SMALLINT NOT NULL,
    id         UUID NOT NULL,
    generation BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX revocations_by_xid ON revocations (xid);
CREATE INDEX revocations_by_expiry ON revocations (expires_at);
CREATE INDEX revocations_by_id ON revocations (id);

CREATE TABLE signing_keys (
    kid         TEXT PRIMARY KEY NOT NULL,
    algorithm   TEXT NOT NULL,
    public_key  BYTEA NOT NULL,
    wrapped_key BYTEA NOT NULL,
    created_at  BIGINT NOT NULL,
    -- Not before this time is it used to sign: every gateway has read it by then.
    signs_at    BIGINT NOT NULL,
    -- After this time it does not verify any more; null while it may still sign.
    expires_at  BIGINT
);
