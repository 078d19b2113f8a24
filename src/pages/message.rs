//! What a person reads about what went wrong.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    account::AccountError,
    error::Kind,
    password::{HashError, PasswordError},
    types::UsernameError,
};

/// A text, what is filled in, and the field that it is about.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Message {
    pub(super) key: &'static str,
    pub(super) values: BTreeMap<&'static str, u64>,
    pub(super) field: Option<&'static str>,
}

impl Message {
    /// A text about a field.
    pub(super) fn about(field: &'static str, key: &'static str) -> Self {
        Self { key, values: BTreeMap::new(), field: Some(field) }
    }

    /// What went wrong; `first` is the field that is looked at again if no other one is meant.
    pub(super) fn of(error: &AccountError, first: &'static str) -> Self {
        let mut values = BTreeMap::new();
        let (key, field) = match error {
            AccountError::Username(error) => (username(error, &mut values), "username"),
            AccountError::Password(error) | AccountError::Hash(HashError::Rejected(error)) => {
                (password(error, &mut values), "password")
            }
            AccountError::Throttled(after) => {
                values.insert("seconds", after.as_secs() + u64::from(after.subsec_nanos() > 0));
                ("error-too-many-requests", first)
            }
            error => match error.kind() {
                Kind::UsernameExists => ("error-username-already-exists", "username"),
                Kind::EmailNotAccepted => ("error-email-not-accepted", "email"),
                Kind::InvalidCredentials => ("error-invalid-credentials", first),
                Kind::PasswordsDoNotMatch => ("error-passwords-do-not-match", "password"),
                Kind::RegistrationClosed => return Self::without_field("error-registration-is-closed"),
                Kind::EmailNotConfigured => return Self::without_field("error-email-is-not-configured"),
                Kind::InvalidMailToken => return Self::without_field("error-invalid-or-expired-token"),
                Kind::InsufficientRole => return Self::without_field("error-last-admin"),
                Kind::Unavailable => return Self::without_field("error-service-unavailable"),
                Kind::Internal => return Self::without_field("error-internal-error"),
                _ => return Self::without_field("error-other"),
            },
        };
        Self { key, values, field: Some(field) }
    }

    /// A text about no field.
    pub(super) fn general(key: &'static str) -> Self {
        Self::without_field(key)
    }

    fn without_field(key: &'static str) -> Self {
        Self { key, values: BTreeMap::new(), field: None }
    }
}

fn username(error: &UsernameError, values: &mut BTreeMap<&'static str, u64>) -> &'static str {
    match error {
        UsernameError::Empty => "error-missing",
        UsernameError::TooLong => {
            values.insert("max", 64);
            "error-username-too-long"
        }
        UsernameError::OverLimit(most) => {
            values.insert("max", *most as u64);
            "error-username-too-long"
        }
        UsernameError::TooShort(least) => {
            values.insert("min", *least as u64);
            "error-username-too-short"
        }
        UsernameError::NotAllowed => "error-username-characters",
        UsernameError::Pattern => "error-username-form",
        UsernameError::Reserved => "error-username-reserved",
    }
}

fn password(error: &PasswordError, values: &mut BTreeMap<&'static str, u64>) -> &'static str {
    match error {
        PasswordError::TooShort(least) => {
            values.insert("min", *least as u64);
            "error-password-too-short"
        }
        PasswordError::TooLong => "error-password-too-long",
        PasswordError::Common => "error-password-common",
        PasswordError::Breached => "error-password-breached",
        PasswordError::IsUsername => "error-password-is-username",
        PasswordError::NotAllowed => "error-password-characters",
    }
}
