-- Users who came from another program keep the id that they had there.
ALTER TABLE users ADD COLUMN external_id TEXT;
CREATE UNIQUE INDEX users_by_external_id ON users (external_id) WHERE external_id IS NOT NULL;
-- Scheme and cost of a password hash that another program made; null once it was renewed.
ALTER TABLE users ADD COLUMN foreign_scheme TEXT;
CREATE INDEX users_by_foreign_scheme ON users (foreign_scheme) WHERE foreign_scheme IS NOT NULL;

-- Whether a mail sent to the address came back as a click. A change of the address unsets it.
ALTER TABLE users ADD COLUMN email_verified BOOLEAN NOT NULL DEFAULT FALSE;
-- The address in lower case, to be found by.
ALTER TABLE users ADD COLUMN email_key TEXT;
UPDATE users SET email_key = lower(email);
CREATE INDEX users_by_email ON users (email_key) WHERE email_key IS NOT NULL;

-- Mails to be sent, and the single-use tokens that they carry. A token is derived from the row's id
-- by a key outside the database when the mail is sent; here is only its hash.
CREATE TABLE mails (
    id              UUID PRIMARY KEY NOT NULL,
    user_id         UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose         SMALLINT NOT NULL,
    token_hash      BYTEA NOT NULL UNIQUE,
    -- SHA-256 of what must still be the same when the token comes back: the address, the password's hash.
    bound_to        BYTEA NOT NULL,
    created_at      BIGINT NOT NULL,
    attempts        BIGINT NOT NULL DEFAULT 0,
    -- Null once it was sent or given up.
    next_attempt_at BIGINT,
    -- Counted from the last attempt to send it.
    expires_at      BIGINT,
    used_at         BIGINT
);
CREATE INDEX mails_by_user ON mails (user_id);
CREATE INDEX mails_by_bound ON mails (bound_to);
CREATE INDEX mails_due ON mails (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- Who changed what, when, from where. Rows are written in the transaction of the change and never altered.
CREATE TABLE audit (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor_id   TEXT,
    actor      TEXT NOT NULL,
    address    TEXT,
    action     TEXT NOT NULL,
    subject_id TEXT,
    subject    TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_by_subject ON audit (subject_id, seq);

-- What is spent of the attempts that are allowed, shared by all gateways. Losing it in a crash is
-- harmless, so it is not written ahead.
CREATE UNLOGGED TABLE attempts (
    bucket  BYTEA PRIMARY KEY NOT NULL,
    spent   DOUBLE PRECISION NOT NULL,
    at      BIGINT NOT NULL,
    -- When nothing is spent any more and the row may go.
    full_at BIGINT NOT NULL
);
CREATE INDEX attempts_by_full ON attempts (full_at);
