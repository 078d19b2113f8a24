-- Lines are pruned by their time (V6 has the index) and found by who did it, to put a pseudonym in the place of the
-- name of an account that is gone.
CREATE INDEX audit_by_actor ON audit (actor_id, seq) WHERE actor_id IS NOT NULL;
-- Accounts that were deleted, and up to which line of the trail their names were replaced.
CREATE TABLE departed_users (
    user_id TEXT PRIMARY KEY NOT NULL,
    seq     BIGINT NOT NULL,
    -- When they are looked through once more: what was under way at the deletion may have written a line since.
    again_at BIGINT
);
-- Those that were deleted before.
INSERT INTO departed_users (user_id, seq) SELECT DISTINCT subject_id, 0 FROM audit
    WHERE subject_id IS NOT NULL AND subject_id NOT IN (SELECT id::text FROM users);
-- A former name whose account is gone is kept as a keyed hash, with an empty name.
CREATE INDEX retired_names_of_nobody ON retired_names (skeleton) WHERE user_id IS NULL AND name <> '';
-- Wrapped values say by themselves what wrapped them, and are bound to their purpose. Those from before cannot be
-- opened any more: the keys are made anew at the next start. Under the new name, a gateway from before makes none.
DELETE FROM signing_keys;
ALTER TABLE signing_keys RENAME COLUMN wrapped_key TO wrapped_pair;
-- The tokens of mails are made with another key now.
DELETE FROM mails;
