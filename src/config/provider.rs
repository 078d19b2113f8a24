//! Providers: others by whom people sign in.

use std::collections::BTreeMap;

use super::{HttpUrl, Source, UpstreamTls};
use crate::types::{Role, Secret};

/// A provider by whom people sign in.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in addresses.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// How it is spoken to.
    pub kind: ProviderKind,
    /// The gateway's id there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: Secret,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Whether whoever shows a verified address there is the account that has verified it here.
    pub links_by_email: bool,
    /// Who gets an account at once.
    pub register: ProviderRegistration,
    /// The claim that tells roles, as the names that lead to it.
    pub roles_claim: Vec<String>,
    /// What its roles are called here.
    pub roles: BTreeMap<String, Role>,
    /// Whether a text is taken for whether an address is verified.
    pub string_booleans: bool,
    /// TLS to its servers.
    pub tls: UpstreamTls,
    /// Where it stands in the config.
    pub source: Source,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenID Connect, by its configuration below the issuer.
    OpenId {
        /// The `iss` of its tokens.
        issuer: String,
        /// The same as an address.
        url: HttpUrl,
    },
    /// GitHub, or an Enterprise server of its own.
    GitHub {
        /// Where people sign in.
        web: HttpUrl,
        /// Where it tells who they are.
        api: HttpUrl,
    },
}

/// Who gets an account by signing in by a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderRegistration {
    /// Nobody.
    Nobody,
    /// Anyone.
    Anyone,
    /// Whoever has shown an address of one of these domains to be theirs.
    Domains(Vec<String>),
}
