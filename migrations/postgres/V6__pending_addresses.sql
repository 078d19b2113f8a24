-- An address that is not shown to be the account's yet, while the one before goes on.
ALTER TABLE users ADD COLUMN pending_email TEXT;
-- Where a mail goes that is not for the account's present address.
ALTER TABLE mails ADD COLUMN recipient TEXT;
-- What is older than it is kept for is found by its time.
CREATE INDEX audit_by_time ON audit (at);
-- Lists of accounts go by the bytes of their names.
CREATE INDEX users_by_name ON users (name COLLATE "C");
