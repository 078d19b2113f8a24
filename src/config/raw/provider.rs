//! `providers` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{config::units::Switch, types::Secret};

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenID Connect.
    #[default]
    Oidc,
    /// GitHub.
    Github,
}

/// Whether an address that is verified there and here makes one account of two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// No: people link on their account page.
    #[default]
    Never,
    /// Yes.
    VerifiedEmail,
}

/// Who gets an account at once: `true`, `false`, or domains of verified addresses.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected true, false, or a list of domains")]
pub enum Register {
    /// Anyone, or nobody.
    Switch(Switch),
    /// Whoever has an address of one of these.
    Domains(Vec<String>),
}

/// A provider by whom people sign in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its name in addresses: a-z, 0-9 and `-`. It calls back at PUBLIC_URL/auth/ui/provider/NAME/callback.
    pub name: String,
    /// What people call it. Default: its name.
    pub title: Option<String>,
    /// oidc or github. Default: oidc.
    #[serde(default)]
    pub kind: ProviderKind,
    /// Of OpenID Connect: the `iss` of its tokens, below which its configuration is.
    pub issuer: Option<String>,
    /// Of GitHub: an Enterprise server in place of https://github.com.
    pub url: Option<String>,
    /// The gateway's id there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: Secret,
    /// What is asked for. Default: openid, profile and email; for GitHub read:user and user:email.
    pub scopes: Option<Vec<String>>,
    /// verified_email: who shows a verified address there is the account that has verified it here. Default: never.
    #[serde(default)]
    pub link: Link,
    /// Who gets an account at once: true, false, or a list of domains of verified addresses. Default: false.
    pub register: Option<Register>,
    /// Which roles people have by it.
    #[serde(default)]
    pub roles: ProviderRoles,
    /// Whether `email_verified` may be a text. Default: false.
    pub string_booleans: Option<Switch>,
    /// A PEM file with the authorities that its servers' certificates may be of. Default: those of the system.
    pub ca: Option<String>,
}

/// Which roles people have by a provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderRoles {
    /// The claim that tells them, with dots between names that lie in others. Default: roles.
    pub claim: Option<String>,
    /// What a role there is called here; never admin. Those here follow those there at each sign-in.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
}
