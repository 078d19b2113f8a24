//! The API keys of an account: shown, made, ended.

use http::StatusCode;

use super::{
    account::minute,
    endpoint::PageResult,
    message::Message,
    see_other,
    view::{KeyEntry, Keys, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::{Failure, may_reach},
    account::{AccountError, ApiKeyRequest},
    error::Kind,
    store::ApiKey,
    token::SignedIn,
};

/// Keys of a page.
const KEYS: u32 = 50;

/// Seconds of a day.
const DAY: i64 = 86_400;

fn entry(key: ApiKey) -> KeyEntry {
    let joined = |list: Vec<String>| Some(list.join(", ")).filter(|list| !list.is_empty());
    KeyEntry {
        id: key.id.to_string(),
        name: key.name,
        prefix: key.id.prefix(),
        roles: key.limits.roles.map(|roles| roles.to_string().replace(',', ", ")),
        routes: joined(key.limits.routes),
        networks: joined(key.limits.networks.iter().map(ToString::to_string).collect()),
        created_on: minute(key.created_at),
        expires_on: key.expires_at.map(minute),
        used_on: key.last_used_at.map(minute),
    }
}

/// Returns the words of a field, if there are any.
fn words(text: &str) -> Option<Vec<String>> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    Some(words.map(str::to_owned).collect::<Vec<_>>()).filter(|words| !words.is_empty())
}

impl Visit<'_> {
    async fn keys_page(&mut self, person: &SignedIn) -> Result<Keys, Failure> {
        let after = Some(self.query("after")).filter(|after| !after.is_empty());
        let listed = self.pages.accounts.api_keys(person, KEYS, after.as_deref()).await?;
        Ok(Keys {
            form: self.form(person),
            notice: self.notice(),
            keys: listed.keys.into_iter().map(entry).collect(),
            next: listed.next,
            ..Keys::default()
        })
    }

    pub(super) async fn show_keys(&mut self) -> PageResult {
        let person = self.person()?;
        // Asked for at once, and not when all is typed.
        self.pages.accounts.may_change(&person).await.map_err(Failure::from)?;
        let page = self.keys_page(&person).await?;
        self.show(StatusCode::OK, &page)
    }

    pub(super) async fn keys(&mut self) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        let (accounts, address) = (self.pages.accounts.clone(), self.client.address);
        if sent.is_set("end") {
            accounts.end_api_key(&person, &sent.text("id"), address).await.map_err(Failure::from)?;
            return Ok(see_other(&format!("{}/account/keys?done=key", self.pages.loaded.ui)));
        }
        let days = sent.text("days");
        // What is no number is no life that can be asked for.
        let days = (!days.is_empty()).then(|| days.parse::<i64>().unwrap_or_default());
        let wanted = ApiKeyRequest {
            name: sent.text("name"),
            roles: words(&sent.text("roles")),
            routes: words(&sent.text("routes")),
            networks: words(&sent.text("networks")),
            expires_in: days.map(|days| days.saturating_mul(DAY)),
        };
        let routes = self.pages.routes.clone();
        let reaches = |pattern: &_, roles: &_| may_reach(&routes, pattern, roles);
        match accounts.add_api_key(&person, wanted, &reaches, address).await {
            Ok(made) => {
                let page = self.keys_page(&person).await?;
                let made = Some(made.text.expose().to_owned());
                self.show(StatusCode::CREATED, &Keys { made, notice: None, ..page })
            }
            Err(error @ (AccountError::Unproved(_) | AccountError::Refused(Kind::Unauthenticated))) => {
                Err(error.into())
            }
            Err(error) => self.show_wrong_key(&person, &sent, &error).await,
        }
    }

    async fn show_wrong_key(&mut self, person: &SignedIn, sent: &Sent, error: &AccountError) -> PageResult {
        let message = match error.kind() {
            Kind::MissingParameters if sent.text("name").is_empty() => {
                Message::about("name", "error-missing")
            }
            Kind::MissingParameters => Message::about("routes", "error-key"),
            Kind::InsufficientRole => Message::about("routes", "error-key-more"),
            _ => Message::of(error, "name"),
        };
        let status = self.status_of(error);
        let page = self.keys_page(person).await?;
        let page = Keys {
            wrong: Wrong::of(message),
            name: sent.text("name"),
            days: sent.text("days"),
            roles: sent.text("roles"),
            routes: sent.text("routes"),
            networks: sent.text("networks"),
            ..page
        };
        self.show(status, &page)
    }
}
