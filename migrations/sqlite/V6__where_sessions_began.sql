-- Where a session was opened, for the list that people see. Sessions from before do not know.
ALTER TABLE sessions ADD COLUMN address TEXT;
ALTER TABLE sessions ADD COLUMN user_agent TEXT;
-- How its holder showed who they are, by the names of RFC 8176.
ALTER TABLE sessions ADD COLUMN methods TEXT NOT NULL DEFAULT 'pwd';
