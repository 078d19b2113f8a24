-- The gateways that follow the log. Each raises its beat once a second and looks at what it finds: a
-- database that has lost a part of its history (a standby that lagged, a backup) does not show the last one.
CREATE TABLE gateways (
    id      UUID PRIMARY KEY NOT NULL,
    beat    BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX gateways_by_seen ON gateways (seen_at);
