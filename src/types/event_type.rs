//! Kinds of events that others are told of by webhooks.

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventType(&'static str);

/// The kinds, and the actions of the audit trail that each stands for. An action may be of several kinds.
const TYPES: &[(&str, &[&str])] = &[
    ("user.created", &["user.register", "user.add"]),
    ("user.imported", &["user.import"]),
    (
        "user.updated",
        &[
            "user.change",
            "user.update",
            "user.set-roles",
            "user.set-password",
            "user.reset-password",
            "user.verify-email",
            "user.disable",
            "user.enable",
        ],
    ),
    ("user.disabled", &["user.disable"]),
    ("user.enabled", &["user.enable"]),
    ("user.deleted", &["user.delete"]),
    ("session.created", &["user.login"]),
    (
        "session.revoked",
        &[
            "user.logout",
            "user.logout-all",
            "user.end-session",
            "user.end-sessions",
            "session.replay",
            "user.change",
            "user.update",
            "user.set-roles",
            "user.set-password",
            "user.reset-password",
            "user.reset-factors",
            "user.disable",
            "user.enable",
            "user.delete",
        ],
    ),
    ("login.failed", &["user.login-failed", "user.factor-failed"]),
    ("factor.added", &["user.add-factor"]),
    ("factor.removed", &["user.remove-factor", "user.reset-factors"]),
    ("provider.linked", &["user.link"]),
    ("provider.unlinked", &["user.unlink"]),
    ("api_key.created", &["api-key.create"]),
    ("api_key.revoked", &["api-key.end"]),
    ("client.created", &["client.add"]),
    ("client.updated", &["client.set-roles", "client.renew-secret"]),
    ("client.deleted", &["client.remove"]),
    ("external.revoked", &["external.revoke", "external.logout"]),
    ("signing_key.rotated", &["key.rotate"]),
    ("signing_key.revoked", &["key.revoke"]),
    ("config.reloaded", &["config.reload"]),
];

impl EventType {
    /// Returns all kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().map(|(name, _)| Self(name))
    }

    /// Returns the kinds that a text of the config means: one, those of a subject as in `user.*`, or all with `*`. Returns none for another
    /// text.
    pub fn matching(text: &str) -> Vec<Self> {
        let is_meant = |kind: &Self| match text.strip_suffix('*') {
            Some("") => true,
            Some(subject) => subject.ends_with('.') && kind.0.starts_with(subject),
            None => kind.0 == text,
        };
        Self::all().filter(is_meant).collect()
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Returns the actions of the audit trail that it stands for.
    pub fn actions(self) -> &'static [&'static str] {
        TYPES.iter().find(|(name, _)| *name == self.0).map_or(&[], |(_, actions)| actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_means_one_kind_those_of_a_subject_or_all() {
        let names =
            |text: &str| EventType::matching(text).into_iter().map(EventType::name).collect::<Vec<_>>();
        assert_eq!(names("user.created"), ["user.created"]);
        assert_eq!(names("session.*"), ["session.created", "session.revoked"]);
        assert_eq!(names("*").len(), TYPES.len());
        for none in ["", "user", "user.", "us*", "user*", "User.created", "user.created*", ".*"] {
            assert!(names(none).is_empty(), "{none}");
        }
        assert!(EventType::all().all(|kind| !kind.actions().is_empty()));
    }
}
