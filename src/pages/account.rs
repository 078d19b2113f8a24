//! The pages of an account: what it is, changes, sessions, its end.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    device,
    endpoint::PageResult,
    message::Message,
    see_other,
    view::{self, Account, Attribute, Change, Sessions, What, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::Failure,
    account::{AccountError, ChangeRequest, Changed},
    clock::{UnixMillis, rfc3339},
    error::Kind,
    token::SignedIn,
    types::AttributeChanges,
};

/// Sessions of a page.
const SESSIONS: u32 = 50;

/// What was done a moment ago, by the word in the address.
const NOTICES: &[(&str, &str)] = &[
    ("name", "saved-name"),
    ("profile", "saved-profile"),
    ("password", "saved-password"),
    ("email", "saved-email"),
    ("sent", "saved-sent"),
    ("session", "saved-session"),
    ("factor", "saved-factor"),
    ("removed", "saved-removed"),
    ("linked", "saved-linked"),
    ("key", "saved-key"),
];

/// Returns the day of a time.
fn day(at: UnixMillis) -> String {
    rfc3339(at).chars().take(10).collect()
}

/// Returns the day and the minute of a time.
pub(super) fn minute(at: UnixMillis) -> String {
    format!("{} UTC", rfc3339(at).chars().take(16).collect::<String>().replace('T', " "))
}

impl Visit<'_> {
    pub(super) fn notice(&self) -> Option<&'static str> {
        let done = self.query("done");
        NOTICES.iter().find(|(word, _)| *word == done).map(|(_, key)| *key)
    }

    fn account_address(&self, done: &str) -> String {
        format!("{}/account?done={done}", self.pages.loaded.ui)
    }

    pub(super) async fn show_account(&mut self) -> PageResult {
        let person = self.person()?;
        let user = self.pages.accounts.me(&person).await.map_err(Failure::from)?;
        let page = Account {
            form: self.form(&person),
            notice: self.notice(),
            username: user.name.to_string(),
            email_verified: user.email_verified,
            can_send_again: self.pages.accounts.config.email.is_some() && user.unverified_email().is_some(),
            email: user.email,
            pending_email: user.pending_email,
            roles: user.roles.to_string().replace(',', ", "),
            created_at: rfc3339(user.created_at),
            created_on: day(user.created_at),
        };
        self.show(StatusCode::OK, &page)
    }

    async fn change_page(&self, what: What, person: &SignedIn) -> Result<Change, Failure> {
        let accounts = &self.pages.accounts;
        let user = accounts.me(person).await?;
        // Who has no password to be asked for shows anew who they are.
        if (what == What::Email && user.has_factors) || user.password_hash.is_none() {
            accounts.need_proof(person, &user).await?;
        }
        let attributes = self.pages.accounts.own_attributes(&user).map(|(name, value)| Attribute {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
        });
        Ok(Change {
            what,
            attributes: attributes.filter(|_| what == What::Name).collect(),
            form: self.form(person),
            value: match what {
                What::Name => user.name.to_string(),
                What::Email => user.pending_email.or(user.email).unwrap_or_default(),
                What::Password | What::Delete => String::new(),
            },
            account: user.name.to_string(),
            needs_password: !accounts.has_recent_proof(person).await?,
            min_length: accounts.config.password.min_length,
            ..Change::default()
        })
    }

    pub(super) async fn show_change(&mut self, what: What) -> PageResult {
        let person = self.person()?;
        let page = self.change_page(what, &person).await?;
        self.show(StatusCode::OK, &page)
    }

    pub(super) async fn change(&mut self, what: What) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        if what == What::Email && sent.is_set("again") {
            let sent = self.pages.accounts.resend_verification(&person, self.client.address).await;
            sent.map_err(Failure::from)?;
            return Ok(see_other(&self.account_address("sent")));
        }
        let missing = match what {
            What::Name if sent.text("username").is_empty() => Some("username"),
            What::Email if sent.text("email").is_empty() => Some("email"),
            What::Password if sent.secret("password").is_none() => Some("password"),
            _ => None,
        };
        let (status, message) = match missing {
            Some(field) => (StatusCode::BAD_REQUEST, Message::about(field, "error-missing")),
            None => match self.apply(what, &person, &sent).await {
                Ok(response) => return Ok(response),
                Err(error) if error.kind() == Kind::Unauthenticated => return Err(error.into()),
                Err(error) => {
                    let message = match error {
                        AccountError::Explained(Kind::MissingParameters, _) => {
                            Message::general("error-attribute")
                        }
                        AccountError::Explained(Kind::InvalidCredentials, _) => {
                            Message::about("current_password", "error-current-password-needed")
                        }
                        AccountError::Refused(Kind::InvalidCredentials) => {
                            Message::about("current_password", "error-current-password")
                        }
                        ref error => Message::of(error, "current_password"),
                    };
                    (self.status_of(&error), message)
                }
            },
        };
        let page = self.change_page(what, &person).await?;
        let value = match what {
            What::Name => sent.text("username"),
            What::Email => sent.text("email"),
            What::Password | What::Delete => String::new(),
        };
        self.show(status, &Change { wrong: Wrong::of(message), value, ..page })
    }

    async fn apply(
        &mut self,
        what: What,
        person: &SignedIn,
        sent: &Sent,
    ) -> Result<Response<Bytes>, AccountError> {
        let accounts = &self.pages.accounts;
        let current_password = sent.secret("current_password");
        let wanted = match what {
            What::Name => self.wanted_profile(person, sent).await?,
            What::Email => ChangeRequest { new_email: Some(sent.text("email")), ..ChangeRequest::default() },
            What::Password => {
                ChangeRequest { new_password: sent.secret("password"), ..ChangeRequest::default() }
            }
            What::Delete => {
                let id = person.user.to_string();
                accounts.delete(person, Some(&id), current_password.as_ref(), self.client.address).await?;
                self.remove_session_cookie();
                let page = view::Text { title: "page-delete", text: "delete-done", request_id: None };
                let shown = self.show(StatusCode::OK, &page);
                return shown.map_err(|failure| AccountError::Refused(failure.problem.kind));
            }
        };
        let done = match what {
            What::Name if wanted.new_username.is_none() => "profile",
            What::Name => "name",
            What::Email => "email",
            What::Password | What::Delete => "password",
        };
        let changed = accounts
            .change(person, ChangeRequest { current_password, ..wanted }, self.client.address)
            .await?;
        if let Some(Changed::Cookie(session)) = changed {
            self.set_session_cookie(session.cookie);
        }
        Ok(see_other(&self.account_address(done)))
    }

    /// Returns what is to change of the name and of what people say of themselves.
    async fn wanted_profile(&self, person: &SignedIn, sent: &Sent) -> Result<ChangeRequest, AccountError> {
        let user = self.pages.accounts.me(person).await?;
        let mut attributes = AttributeChanges::new();
        for (name, value) in self.pages.accounts.own_attributes(&user) {
            let key = format!("attribute.{name}");
            let typed = sent.text(&key);
            if sent.is_set(&key) && typed != value.unwrap_or_default() {
                attributes.insert(name.to_owned(), Some(typed).filter(|typed| !typed.is_empty()));
            }
        }
        let name = sent.text("username");
        let is_as_before = name == user.name.as_str() && !attributes.is_empty();
        let new_username = Some(name).filter(|_| !is_as_before);
        Ok(ChangeRequest { new_username, attributes, ..ChangeRequest::default() })
    }

    pub(super) async fn show_sessions(&mut self) -> PageResult {
        let person = self.person()?;
        let after = Some(self.query("after")).filter(|after| !after.is_empty());
        let listed = self.pages.accounts.sessions(&person, SESSIONS, after.as_deref()).await;
        let listed = listed.map_err(Failure::from)?;
        let session = |session: crate::store::Session| view::Session {
            id: session.id.to_string(),
            current: session.id == person.session,
            device: session.place.user_agent.as_deref().map(device::name),
            address: session.place.address,
            created_on: minute(session.created_at),
            used_on: minute(session.last_used_at),
        };
        let page = Sessions {
            form: self.form(&person),
            notice: self.notice(),
            sessions: listed.sessions.into_iter().map(session).collect(),
            next: listed.next,
        };
        self.show(StatusCode::OK, &page)
    }

    pub(super) async fn end_sessions(&mut self) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        let (accounts, address) = (&self.pages.accounts, self.client.address);
        let id = sent.text("id");
        let is_own = if sent.is_set("all") {
            accounts.logout_all(&person, address).await.map_err(Failure::from)?;
            true
        } else {
            accounts.end_session(&person, &id, address).await.map_err(Failure::from)?;
            id == person.session.to_string()
        };
        let ui = self.pages.loaded.ui.clone();
        if is_own {
            self.remove_session_cookie();
            return Ok(see_other(&format!("{ui}/logout")));
        }
        Ok(see_other(&format!("{ui}/account/sessions?done=session")))
    }
}
