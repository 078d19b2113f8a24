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
    roles          TEXT NOT NULL,
    disabled       BOOLEAN NOT NULL DEFAULT FALSE,
    generation     BIGINT NOT NULL DEFAULT 1,
    -- The latest expiry of any access token of this user: a revocation outlives it.
    access_exp_max BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    -- Users who came from another program keep the id that they had there.
    external_id    TEXT,
    -- What the config declares beside that, as a JSON object of texts; empty for none.
    attributes     TEXT NOT NULL DEFAULT ''
);
-- Lists of accounts go by the bytes of their names.
CREATE INDEX users_by_name ON users (name COLLATE "C");
CREATE UNIQUE INDEX users_by_external_id ON users (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE passwords (
    user_id        UUID PRIMARY KEY NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash           TEXT NOT NULL,
    -- Scheme and cost of a hash that another program made; null once it was renewed.
    foreign_scheme TEXT,
    -- When the password was chosen, as far as is known: a better hash of the same one changes nothing.
    changed_at     BIGINT NOT NULL,
    -- Whether it was chosen by whoever read a mail: another mail proves nothing beside it.
    by_mail        BOOLEAN NOT NULL DEFAULT FALSE,
    -- Whether its owner is to choose another one before anything else.
    must_change    BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX passwords_by_foreign_scheme ON passwords (foreign_scheme) WHERE foreign_scheme IS NOT NULL;

CREATE TABLE addresses (
    user_id     UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- 1: the account's own; 2: one that is to take its place when it was verified.
    standing    SMALLINT NOT NULL,
    address     TEXT NOT NULL,
    -- The address in lower case, to be found by.
    key         TEXT NOT NULL,
    -- When a mail sent to it came back as a click.
    verified_at BIGINT,
    -- Whether it was given later than the account was made; and was so, and not verified, before the account had a factor: codes are
    -- not sent to such a one. Nor to one that a provider has verified whose word is not ours; and neither links accounts.
    is_changed  BOOLEAN NOT NULL DEFAULT FALSE,
    is_weak     BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (user_id, standing)
);
-- An address is shown to be one account's and no other's.
CREATE UNIQUE INDEX addresses_by_verified ON addresses (key) WHERE verified_at IS NOT NULL;

-- Second factors. What an app makes codes with is derived from the row's id by a key outside the database.
CREATE TABLE factors (
    id           UUID PRIMARY KEY NOT NULL,
    user_id      UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- 1: codes of an app, 2: a passkey.
    kind         SMALLINT NOT NULL,
    name         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    -- When its owner has shown to have it; null before.
    confirmed_at BIGINT,
    last_used_at BIGINT,
    -- Of a passkey: the id of its credential, and its public key.
    credential   BYTEA UNIQUE,
    public_key   BYTEA,
    -- The step of the last code that was taken, or what the passkey counted at last: neither is taken again.
    counter      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX factors_by_user ON factors (user_id);
CREATE INDEX factors_to_confirm ON factors (created_at) WHERE confirmed_at IS NULL;

-- SHA-256 of codes for when a factor is lost; a code that was used is gone.
CREATE TABLE recovery_codes (
    user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    BYTEA NOT NULL,
    PRIMARY KEY (user_id, hash)
);

-- Questions for a second factor, by SHA-256 of their tokens.
CREATE TABLE challenges (
    token_hash BYTEA PRIMARY KEY NOT NULL,
    -- 1: the second step of a login, 2: a passkey in place of one, 3: getting a first factor, 4: a session whose holder shows anew who they are.
    purpose    SMALLINT NOT NULL,
    user_id    UUID REFERENCES users (id) ON DELETE CASCADE,
    generation BIGINT,
    session_id UUID,
    methods    TEXT NOT NULL,
    -- What will hold the session, as in sessions, and whether a browser keeps its cookie.
    kind       SMALLINT NOT NULL,
    keep       BOOLEAN NOT NULL,
    tries      BIGINT NOT NULL DEFAULT 0,
    -- A link to a provider that is made with the session, in JSON.
    link       TEXT,
    -- The mail with a code.
    code_mail  UUID,
    expires_at BIGINT NOT NULL
);
CREATE INDEX challenges_by_user ON challenges (user_id);
CREATE INDEX challenges_by_expiry ON challenges (expires_at);

-- By whom people sign in instead of by a password: the provider's issuer, and who they are there.
CREATE TABLE links (
    id         UUID PRIMARY KEY NOT NULL,
    user_id    UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    -- The provider's name here, and what the account is called there.
    provider   TEXT NOT NULL,
    label      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);
CREATE INDEX links_by_user ON links (user_id);

-- SHA-256 of states that came back from a provider: each is good once.
CREATE TABLE spent_states (
    hash       BYTEA PRIMARY KEY NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX spent_states_by_expiry ON spent_states (expires_at);

-- An account as it is read.
CREATE VIEW accounts AS
    SELECT u.id, u.name, u.skeleton, u.roles, u.disabled, u.generation, u.created_at, u.external_id, u.attributes,
        p.hash AS password_hash, own.address AS email, own.key AS email_key,
        own.verified_at IS NOT NULL AS email_verified, coalesce(own.is_weak, FALSE) AS email_is_weak, pending.address AS pending_email,
        coalesce(p.by_mail, FALSE) AS password_by_mail, coalesce(p.must_change, FALSE) AS must_change_password,
        EXISTS (SELECT 1 FROM factors f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL) AS has_factors
    FROM users u
    LEFT JOIN passwords p ON p.user_id = u.id
    LEFT JOIN addresses own ON own.user_id = u.id AND own.standing = 1
    LEFT JOIN addresses pending ON pending.user_id = u.id AND pending.standing = 2;

-- Deleted and former names are never given out again.
CREATE TABLE retired_names (
    skeleton   TEXT PRIMARY KEY NOT NULL,
    -- Empty where it is kept as a keyed hash, because the account is gone.
    name       TEXT NOT NULL,
    retired_at BIGINT NOT NULL,
    -- Whose name it was: its former holder may take it back. Null where the account is gone.
    user_id    UUID
);
CREATE INDEX retired_names_of_nobody ON retired_names (skeleton) WHERE user_id IS NULL AND name <> '';

-- Rows of ended sessions are removed later, in pieces, so they outlive the account: no foreign key.
CREATE TABLE sessions (
    id                 UUID PRIMARY KEY NOT NULL,
    user_id            UUID NOT NULL,
    -- What it is held by, 1: refresh tokens.
    kind               SMALLINT NOT NULL,
    generation         BIGINT NOT NULL,
    created_at         BIGINT NOT NULL,
    -- When its holder last showed who they are, and how, by the names of RFC 8176.
    authenticated_at   BIGINT NOT NULL,
    methods            TEXT NOT NULL,
    last_used_at       BIGINT NOT NULL,
    ends_at            BIGINT NOT NULL,
    refresh_expires_at BIGINT NOT NULL,
    rotated_at         BIGINT NOT NULL,
    refresh_number     BIGINT NOT NULL,
    current_hash       BYTEA NOT NULL,
    previous_hash      BYTEA,
    nonce              BYTEA NOT NULL,
    access_exp_max     BIGINT NOT NULL,
    -- Where it was opened, for the list that people see.
    address            TEXT,
    user_agent         TEXT
);
-- The session that was used longest ago, where an account has too many.
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_expiry ON sessions (refresh_expires_at);

-- Whose sessions below a generation are dead and still have rows.
CREATE TABLE session_sweeps (
    user_id    UUID PRIMARY KEY NOT NULL,
    generation BIGINT NOT NULL
);

-- The log that every mirror is a copy of. Sequence numbers are not the order of commits: readers
-- follow the transaction ids by snapshots.
CREATE TABLE revocations (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        XID8 NOT NULL DEFAULT pg_current_xact_id(),
    -- 1: a session, 2: a user, 3: a signing key, 4: a program, 5: another issuer's subject,
    -- 6: an API key, which is new where the generation is 0, 7: the owner of API keys, which are to be read again.
    kind       SMALLINT NOT NULL,
    id         UUID NOT NULL,
    generation BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX revocations_by_xid ON revocations (xid);
CREATE INDEX revocations_by_expiry ON revocations (expires_at);
CREATE INDEX revocations_by_id ON revocations (id);

-- The gateways that follow the log. Each raises its beat once a second and looks at what it finds: a
-- database that has lost a part of its history (a standby that lagged, a backup) does not show the last one.
CREATE TABLE gateways (
    id            UUID PRIMARY KEY NOT NULL,
    beat          BIGINT NOT NULL,
    seen_at       BIGINT NOT NULL,
    -- The bound that it keeps, in milliseconds: a new key signs when the one with the greatest must have read it.
    max_staleness BIGINT NOT NULL
);
CREATE INDEX gateways_by_seen ON gateways (seen_at);

CREATE TABLE signing_keys (
    kid          TEXT PRIMARY KEY NOT NULL,
    algorithm    TEXT NOT NULL,
    public_key   BYTEA NOT NULL,
    wrapped_pair BYTEA NOT NULL,
    created_at   BIGINT NOT NULL,
    -- Not before this time is it used to sign: every gateway has read it by then.
    signs_at     BIGINT NOT NULL,
    -- After this time it does not verify any more; null while it may still sign.
    expires_at   BIGINT
);

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
    used_at         BIGINT,
    -- Where it goes, if not to the account's present address.
    recipient       TEXT
);
CREATE INDEX mails_by_user ON mails (user_id);
CREATE INDEX mails_by_bound ON mails (bound_to);
CREATE INDEX mails_due ON mails (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Those that were sent or given up, to be found when they are to go.
CREATE INDEX mails_by_expiry ON mails (coalesce(expires_at, 0)) WHERE next_attempt_at IS NULL;

-- What has happened: who did what to whom, when, from where. Rows are written in the transaction of the change, and
-- altered only to put pseudonyms in the place of the names of accounts that are gone.
CREATE TABLE events (
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
CREATE INDEX events_by_subject ON events (subject_id, seq);
CREATE INDEX events_by_actor ON events (actor_id, seq) WHERE actor_id IS NOT NULL;
-- What is older than it is kept for is found by its time.
CREATE INDEX events_by_time ON events (at);

-- Receivers that are told of events, by their addresses. One that fails is asked seldom, and after a week not any more.
CREATE TABLE webhook_endpoints (
    url           TEXT PRIMARY KEY NOT NULL,
    failures      BIGINT NOT NULL DEFAULT 0,
    failing_since BIGINT,
    -- When it is asked again at the earliest, after a failure.
    retry_at      BIGINT NOT NULL DEFAULT 0,
    disabled_at   BIGINT
);

-- What each is told of: actions of events, and the kinds that these are told as.
CREATE TABLE webhook_subscriptions (
    action TEXT NOT NULL,
    url    TEXT NOT NULL,
    type   TEXT NOT NULL,
    PRIMARY KEY (action, url, type)
);

-- What is to be told. The message is made of the event when it is sent.
CREATE TABLE webhook_deliveries (
    url       TEXT NOT NULL,
    seq       BIGINT NOT NULL,
    type      TEXT NOT NULL,
    attempts  BIGINT NOT NULL DEFAULT 0,
    queued_at BIGINT NOT NULL,
    due_at    BIGINT NOT NULL,
    PRIMARY KEY (url, seq, type)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (url, due_at);
CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (queued_at);

CREATE FUNCTION tell_of_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhook_deliveries (url, seq, type, queued_at, due_at)
        SELECT s.url, NEW.seq, s.type, NEW.at, NEW.at
        FROM webhook_subscriptions s JOIN webhook_endpoints e ON e.url = s.url
        WHERE s.action = NEW.action AND e.disabled_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_event AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION tell_of_event();

-- Accounts that were deleted, and up to which event their names were replaced.
CREATE TABLE departed_users (
    user_id  TEXT PRIMARY KEY NOT NULL,
    seq      BIGINT NOT NULL,
    -- When they are looked through once more: what was under way at the deletion may have written one since.
    again_at BIGINT
);

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

-- The gateways' account at a certificate authority, by its directory (RFC 8555); wrapped by the master key.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY NOT NULL,
    wrapped   BYTEA NOT NULL
);

-- The certificate of each name, and the order by which one is obtained.
CREATE TABLE certificates (
    name              TEXT PRIMARY KEY NOT NULL,
    -- How many were obtained; 0 while there is none.
    version           BIGINT NOT NULL DEFAULT 0,
    chain             TEXT,
    -- Of the authority that has issued it.
    directory         TEXT,
    wrapped_key       BYTEA,
    -- When it is looked at next, to be obtained or renewed.
    due_at            BIGINT NOT NULL,
    failures          INTEGER NOT NULL DEFAULT 0,
    -- The order that is under way.
    order_url         TEXT,
    order_directory   TEXT,
    wrapped_order_key BYTEA,
    -- Which gateway works on it: the number of its lease, and until when it has that.
    fence             BIGINT NOT NULL DEFAULT 0,
    leased_until      BIGINT NOT NULL DEFAULT 0
);

-- What an authority may ask any gateway; one for each name, since by TLS it asks by the name alone.
CREATE TABLE acme_challenges (
    name              TEXT PRIMARY KEY NOT NULL,
    token             TEXT NOT NULL,
    key_authorization TEXT NOT NULL
);

-- Links by which strangers may make accounts, also where registration is closed.
CREATE TABLE invitations (
    id         uuid PRIMARY KEY,
    -- SHA-256 of the token in the link.
    token_hash bytea NOT NULL UNIQUE,
    -- Beside the default ones.
    roles      text NOT NULL,
    -- How many accounts may still be made.
    uses       bigint NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX invitations_by_expiry ON invitations (expires_at);

-- Keys of programs, each with a secret of 160 bits of which only the SHA-256 is here. The id is no secret.
CREATE TABLE api_keys (
    id           BIGINT PRIMARY KEY NOT NULL,
    user_id      UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         BYTEA NOT NULL,
    -- Of its owner's roles those that it has; null: all, whichever those are.
    roles        TEXT,
    -- The patterns of paths that it opens, and the networks that it is accepted from, one a line; empty: all.
    routes       TEXT NOT NULL,
    networks     TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    -- To a minute.
    last_used_at BIGINT
);
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL;

-- Client programs, each with a secret or with public keys (RFC 7517).
CREATE TABLE clients (
    id             UUID PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    roles          TEXT NOT NULL,
    -- SHA-256 of the secret, which is random.
    secret_hash    BYTEA,
    jwks           TEXT,
    generation     BIGINT NOT NULL DEFAULT 1,
    -- The latest expiry of any of its tokens: a revocation outlives it.
    access_exp_max BIGINT NOT NULL DEFAULT 0,
    created_at     BIGINT NOT NULL,
    last_used_at   BIGINT
);
CREATE INDEX clients_by_name ON clients (name COLLATE "C");
