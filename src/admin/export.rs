//! All that is kept about an account, for whoever asks for it (GDPR, article 15).

use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    AdminApi, Asked, CallResult,
    shape::{AuditLine, Session, User},
};
use crate::{
    account::{MOST_KEYS, list_keys},
    clock::rfc3339,
    error::private_json,
    store::{self, AuditFilter, SessionPage},
    types::UserId,
    web::api_key::ApiKeys,
};

/// Rows that are read at once.
const PAGE: u32 = 500;

/// The most lines of the audit trail, the newest.
const MOST_EVENTS: usize = 100_000;

/// All that is kept about an account. Of its password and the secrets of its factors no more is told than that they are there.
#[derive(Serialize, JsonSchema)]
pub(super) struct Export {
    account: User,
    has_password: bool,
    sessions: Vec<Session>,
    factors: Vec<Factor>,
    providers: Vec<Provider>,
    keys: ApiKeys,
    /// Lines of the audit trail about the account, newest first.
    events: Vec<AuditLine>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExportedFactor")]
struct Factor {
    id: String,
    /// totp or passkey.
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    created_at: String,
    last_used_at: Option<String>,
}

/// A link to a provider.
#[derive(Serialize, JsonSchema)]
struct Provider {
    id: String,
    provider: String,
    /// What the account is called there.
    label: String,
    created_at: String,
}

impl From<store::Factor> for Factor {
    fn from(factor: store::Factor) -> Self {
        Self {
            id: factor.id.to_string(),
            kind: factor.kind.name(),
            name: factor.name,
            created_at: rfc3339(factor.created_at),
            last_used_at: factor.last_used_at.map(rfc3339),
        }
    }
}

impl From<store::Link> for Provider {
    fn from(link: store::Link) -> Self {
        Self {
            id: link.id.to_string(),
            provider: link.provider,
            label: link.label,
            created_at: rfc3339(link.created_at),
        }
    }
}

impl AdminApi {
    pub(super) async fn export_user(&self, asked: Asked<'_>) -> CallResult {
        let user = self.user(asked.parameter(0)).await?;
        let (store, id) = (&*self.operator.store, user.id);
        let body = Export {
            has_password: user.password_hash.is_some(),
            sessions: self.all_sessions(id).await?,
            factors: store.factors(id).await?.into_iter().map(Factor::from).collect(),
            providers: store.links(id).await?.into_iter().map(Provider::from).collect(),
            keys: list_keys(store, id, MOST_KEYS, None).await?.into(),
            events: self.all_events(id).await?,
            account: user.into(),
        };
        // The trail says who has read it.
        let event = asked.by()?.event("user.export", String::new());
        store.record(Some(id), &event).await?;
        let mut response = private_json(StatusCode::OK, &body);
        let name = HeaderValue::from_static("attachment; filename=\"account.json\"");
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
        Ok(response)
    }

    async fn all_sessions(&self, user: UserId) -> store::Result<Vec<Session>> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.operator.store.sessions(user, SessionPage { limit: PAGE, after }).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after = Some((last.created_at, last.id));
            all.extend(page.into_iter().map(Session::from));
        }
    }

    async fn all_events(&self, user: UserId) -> store::Result<Vec<AuditLine>> {
        let mut all: Vec<AuditLine> = Vec::new();
        let mut filter = AuditFilter { before: None, subject: Some(user), limit: PAGE };
        while all.len() < MOST_EVENTS {
            let page = self.operator.store.audit(&filter).await?;
            let Some(last) = page.last() else { break };
            filter.before = Some(last.seq);
            all.extend(page.into_iter().map(AuditLine::from));
        }
        Ok(all)
    }
}
