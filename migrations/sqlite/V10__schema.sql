-- Times are milliseconds since the Unix epoch; ids are the 16 bytes of UUIDs.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE users (
    id             BLOB PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    -- What the name looks like (UTS 39): no two accounts may look alike.
    skeleton       TEXT NOT NULL UNIQUE,
    roles          TEXT NOT NULL,
    disabled       INTEGER NOT NULL DEFAULT 0,
    generation     INTEGER NOT NULL DEFAULT 1,
    -- The latest expiry of any access token of this user: a revocation outlives it.
    access_exp_max INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    -- Users who came from another program keep the id that they had there.
    external_id    TEXT,
    -- What the config declares beside that, as a JSON object of texts; empty for none.
    attributes     TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX users_by_external_id ON users (external_id) WHERE external_id IS NOT NULL;

CREATE TABLE passwords (
    user_id        BLOB PRIMARY KEY NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash           TEXT NOT NULL,
    -- Scheme and cost of a hash that another program made; null once it was renewed.
    foreign_scheme TEXT,
    -- When the password was chosen, as far as is known: a better hash of the same one changes nothing.
    changed_at     INTEGER NOT NULL,
    -- Whether it was chosen by whoever read a mail: another mail proves nothing beside it.
    by_mail        INTEGER NOT NULL DEFAULT 0,
    -- Whether its owner is to choose another one before anything else.
    must_change    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX passwords_by_foreign_scheme ON passwords (foreign_scheme) WHERE foreign_scheme IS NOT NULL;

CREATE TABLE addresses (
    user_id     BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- 1: the account's own; 2: one that is to take its place when it was verified.
    standing    INTEGER NOT NULL,
    address     TEXT NOT NULL,
    -- The address in lower case, to be found by.
    key         TEXT NOT NULL,
    -- When a mail sent to it came back as a click.
    verified_at INTEGER,
    -- Whether it was given later than the account was made; and was so, and not verified, before the account had a factor: codes are
    -- not sent to such a one. Nor to one that a provider has verified whose word is not ours; and neither links accounts.
    is_changed  INTEGER NOT NULL DEFAULT 0,
    is_weak     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, standing)
) STRICT;
-- An address is shown to be one account's and no other's.
CREATE UNIQUE INDEX addresses_by_verified ON addresses (key) WHERE verified_at IS NOT NULL;

-- Second factors. What an app makes codes with is derived from the row's id by a key outside the database.
CREATE TABLE factors (
    id           BLOB PRIMARY KEY NOT NULL,
    user_id      BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- 1: codes of an app, 2: a passkey.
    kind         INTEGER NOT NULL,
    name         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    -- When its owner has shown to have it; null before.
    confirmed_at INTEGER,
    last_used_at INTEGER,
    -- Of a passkey: the id of its credential, and its public key.
    credential   BLOB UNIQUE,
    public_key   BLOB,
    -- The step of the last code that was taken, or what the passkey counted at last: neither is taken again.
    counter      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX factors_by_user ON factors (user_id);
CREATE INDEX factors_to_confirm ON factors (created_at) WHERE confirmed_at IS NULL;

-- SHA-256 of codes for when a factor is lost; a code that was used is gone.
CREATE TABLE recovery_codes (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    BLOB NOT NULL,
    PRIMARY KEY (user_id, hash)
) STRICT;

-- Questions for a second factor, by SHA-256 of their tokens.
CREATE TABLE challenges (
    token_hash BLOB PRIMARY KEY NOT NULL,
    -- 1: the second step of a login, 2: a passkey in place of one, 3: getting a first factor, 4: a session whose holder shows anew who they are.
    purpose    INTEGER NOT NULL,
    user_id    BLOB REFERENCES users (id) ON DELETE CASCADE,
    generation INTEGER,
    session_id BLOB,
    methods    TEXT NOT NULL,
    -- What will hold the session, as in sessions, and whether a browser keeps its cookie.
    kind       INTEGER NOT NULL,
    keep       INTEGER NOT NULL,
    tries      INTEGER NOT NULL DEFAULT 0,
    -- A link to a provider that is made with the session, in JSON.
    link       TEXT,
    -- The mail with a code.
    code_mail  BLOB,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX challenges_by_user ON challenges (user_id);
CREATE INDEX challenges_by_expiry ON challenges (expires_at);

-- By whom people sign in instead of by a password: the provider's issuer, and who they are there.
CREATE TABLE links (
    id         BLOB PRIMARY KEY NOT NULL,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    -- The provider's name here, and what the account is called there.
    provider   TEXT NOT NULL,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (issuer, subject)
) STRICT;
CREATE INDEX links_by_user ON links (user_id);

-- SHA-256 of states that came back from a provider: each is good once.
CREATE TABLE spent_states (
    hash       BLOB PRIMARY KEY NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX spent_states_by_expiry ON spent_states (expires_at);

-- An account as it is read.
CREATE VIEW accounts AS
    SELECT u.id, u.name, u.skeleton, u.roles, u.disabled, u.generation, u.created_at, u.external_id, u.attributes,
        p.hash AS password_hash, own.address AS email, own.key AS email_key,
        own.verified_at IS NOT NULL AS email_verified, coalesce(own.is_weak, 0) AS email_is_weak, pending.address AS pending_email,
        coalesce(p.by_mail, 0) AS password_by_mail, coalesce(p.must_change, 0) AS must_change_password,
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
    retired_at INTEGER NOT NULL,
    -- Whose name it was: its former holder may take it back. Null where the account is gone.
    user_id    BLOB
) STRICT;
CREATE INDEX retired_names_of_nobody ON retired_names (skeleton) WHERE user_id IS NULL AND name <> '';

-- Rows of ended sessions are removed later, in pieces, so they outlive the account: no foreign key.
CREATE TABLE sessions (
    id                 BLOB PRIMARY KEY NOT NULL,
    user_id            BLOB NOT NULL,
    -- What it is held by, 1: refresh tokens.
    kind               INTEGER NOT NULL,
    generation         INTEGER NOT NULL,
    created_at         INTEGER NOT NULL,
    -- When its holder last showed who they are, and how, by the names of RFC 8176.
    authenticated_at   INTEGER NOT NULL,
    methods            TEXT NOT NULL,
    last_used_at       INTEGER NOT NULL,
    ends_at            INTEGER NOT NULL,
    refresh_expires_at INTEGER NOT NULL,
    rotated_at         INTEGER NOT NULL,
    refresh_number     INTEGER NOT NULL,
    current_hash       BLOB NOT NULL,
    previous_hash      BLOB,
    nonce              BLOB NOT NULL,
    access_exp_max     INTEGER NOT NULL,
    -- Where it was opened, for the list that people see.
    address            TEXT,
    user_agent         TEXT
) STRICT;
-- The session that was used longest ago, where an account has too many.
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_expiry ON sessions (refresh_expires_at);

-- Whose sessions below a generation are dead and still have rows.
CREATE TABLE session_sweeps (
    user_id    BLOB PRIMARY KEY NOT NULL,
    generation INTEGER NOT NULL
) STRICT;

-- The log that every mirror is a copy of. One writer at a time makes the sequence the order of commits.
CREATE TABLE revocations (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- 1: a session, 2: a user, 3: a signing key, 4: a program, 5: another issuer's subject,
    -- 6: an API key, which is new where the generation is 0, 7: the owner of API keys, which are to be read again.
    kind       INTEGER NOT NULL,
    id         BLOB NOT NULL,
    generation INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX revocations_by_expiry ON revocations (expires_at);
CREATE INDEX revocations_by_id ON revocations (id);

CREATE TABLE signing_keys (
    kid          TEXT PRIMARY KEY NOT NULL,
    algorithm    TEXT NOT NULL,
    public_key   BLOB NOT NULL,
    wrapped_pair BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    -- Not before this time is it used to sign: every gateway has read it by then.
    signs_at     INTEGER NOT NULL,
    -- After this time it does not verify any more; null while it may still sign.
    expires_at   INTEGER
) STRICT;

-- Mails to be sent, and the single-use tokens that they carry. A token is derived from the row's id
-- by a key outside the database when the mail is sent; here is only its hash.
CREATE TABLE mails (
    id              BLOB PRIMARY KEY NOT NULL,
    user_id         BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose         INTEGER NOT NULL,
    token_hash      BLOB NOT NULL UNIQUE,
    -- SHA-256 of what must still be the same when the token comes back: the address, the password's hash.
    bound_to        BLOB NOT NULL,
    created_at      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    -- Null once it was sent or given up.
    next_attempt_at INTEGER,
    -- Counted from the last attempt to send it.
    expires_at      INTEGER,
    used_at         INTEGER,
    -- Where it goes, if not to the account's present address.
    recipient       TEXT
) STRICT;
CREATE INDEX mails_by_user ON mails (user_id);
CREATE INDEX mails_by_bound ON mails (bound_to);
CREATE INDEX mails_due ON mails (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Those that were sent or given up, to be found when they are to go.
CREATE INDEX mails_by_expiry ON mails (coalesce(expires_at, 0)) WHERE next_attempt_at IS NULL;

-- What has happened: who did what to whom, when, from where. Rows are written in the transaction of the change, and
-- altered only to put pseudonyms in the place of the names of accounts that are gone.
CREATE TABLE events (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at         INTEGER NOT NULL,
    actor_id   TEXT,
    actor      TEXT NOT NULL,
    address    TEXT,
    action     TEXT NOT NULL,
    subject_id TEXT,
    subject    TEXT NOT NULL,
    detail     TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_subject ON events (subject_id, seq);
CREATE INDEX events_by_actor ON events (actor_id, seq) WHERE actor_id IS NOT NULL;
-- What is older than it is kept for is found by its time.
CREATE INDEX events_by_time ON events (at);

-- Receivers that are told of events, by their addresses. One that fails is asked seldom, and after a week not any more.
CREATE TABLE webhook_endpoints (
    url           TEXT PRIMARY KEY NOT NULL,
    failures      INTEGER NOT NULL DEFAULT 0,
    failing_since INTEGER,
    -- When it is asked again at the earliest, after a failure.
    retry_at      INTEGER NOT NULL DEFAULT 0,
    disabled_at   INTEGER
) STRICT;

-- What each is told of: actions of events, and the kinds that these are told as.
CREATE TABLE webhook_subscriptions (
    action TEXT NOT NULL,
    url    TEXT NOT NULL,
    type   TEXT NOT NULL,
    PRIMARY KEY (action, url, type)
) STRICT;

-- What is to be told. The message is made of the event when it is sent.
CREATE TABLE webhook_deliveries (
    url       TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    type      TEXT NOT NULL,
    attempts  INTEGER NOT NULL DEFAULT 0,
    queued_at INTEGER NOT NULL,
    due_at    INTEGER NOT NULL,
    PRIMARY KEY (url, seq, type)
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (url, due_at);
CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (queued_at);

CREATE TRIGGER tell_of_event AFTER INSERT ON events BEGIN
    INSERT INTO webhook_deliveries (url, seq, type, queued_at, due_at)
        SELECT s.url, NEW.seq, s.type, NEW.at, NEW.at
        FROM webhook_subscriptions s JOIN webhook_endpoints e ON e.url = s.url
        WHERE s.action = NEW.action AND e.disabled_at IS NULL;
END;

-- Accounts that were deleted, and up to which event their names were replaced.
CREATE TABLE departed_users (
    user_id  TEXT PRIMARY KEY NOT NULL,
    seq      INTEGER NOT NULL,
    -- When they are looked through once more: what was under way at the deletion may have written one since.
    again_at INTEGER
) STRICT;

-- The gateways' account at a certificate authority, by its directory (RFC 8555); wrapped by the master key.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY NOT NULL,
    wrapped   BLOB NOT NULL
) STRICT;

-- The certificate of each name, and the order by which one is obtained.
CREATE TABLE certificates (
    name              TEXT PRIMARY KEY NOT NULL,
    -- How many were obtained; 0 while there is none.
    version           INTEGER NOT NULL DEFAULT 0,
    chain             TEXT,
    -- Of the authority that has issued it.
    directory         TEXT,
    wrapped_key       BLOB,
    -- When it is looked at next, to be obtained or renewed.
    due_at            INTEGER NOT NULL,
    failures          INTEGER NOT NULL DEFAULT 0,
    -- The order that is under way.
    order_url         TEXT,
    order_directory   TEXT,
    wrapped_order_key BLOB,
    -- Which gateway works on it: the number of its lease, and until when it has that.
    fence             INTEGER NOT NULL DEFAULT 0,
    leased_until      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What an authority may ask any gateway; one for each name, since by TLS it asks by the name alone.
CREATE TABLE acme_challenges (
    name              TEXT PRIMARY KEY NOT NULL,
    token             TEXT NOT NULL,
    key_authorization TEXT NOT NULL
) STRICT;

-- Links by which strangers may make accounts, also where registration is closed.
CREATE TABLE invitations (
    id         BLOB PRIMARY KEY NOT NULL,
    -- SHA-256 of the token in the link.
    token_hash BLOB NOT NULL UNIQUE,
    -- Beside the default ones.
    roles      TEXT NOT NULL,
    -- How many accounts may still be made.
    uses       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX invitations_by_expiry ON invitations (expires_at);

-- Keys of programs, each with a secret of 160 bits of which only the SHA-256 is here. The id is no secret.
CREATE TABLE api_keys (
    id           INTEGER PRIMARY KEY NOT NULL,
    user_id      BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         BLOB NOT NULL,
    -- Of its owner's roles those that it has; null: all, whichever those are.
    roles        TEXT,
    -- The patterns of paths that it opens, and the networks that it is accepted from, one a line; empty: all.
    routes       TEXT NOT NULL,
    networks     TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    -- To a minute.
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL;

-- Client programs, each with a secret or with public keys (RFC 7517).
CREATE TABLE clients (
    id             BLOB PRIMARY KEY NOT NULL,
    name           TEXT NOT NULL UNIQUE,
    roles          TEXT NOT NULL,
    -- SHA-256 of the secret, which is random.
    secret_hash    BLOB,
    jwks           TEXT,
    generation     INTEGER NOT NULL DEFAULT 1,
    -- The latest expiry of any of its tokens: a revocation outlives it.
    access_exp_max INTEGER NOT NULL DEFAULT 0,
    created_at     INTEGER NOT NULL,
    last_used_at   INTEGER
) STRICT;
