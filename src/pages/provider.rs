//! Sign-in by others: to a provider and back, and the page of links.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    Pages,
    account::minute,
    endpoint::PageResult,
    query_of, see_other,
    view::{self, LinkEntry, ProviderButton, Providers, Text, Wrong},
    visit::Visit,
};
use crate::{
    access::{Credential, Failure},
    account::AccountError,
    clock::{UnixMillis, millis},
    error::Kind,
    oidc::{AuthorizationRequest, Identity, ProviderClient, ProviderError},
    store::ChallengePurpose,
    token::{SignedIn, Ticket, TicketPurpose, is_state},
};

/// How long a sign-in by a provider may take.
const TICKET_HOLDS_FOR: std::time::Duration = std::time::Duration::from_secs(600);

/// How far a provider's clock may be from ours.
const CLOCKS_APART: std::time::Duration = std::time::Duration::from_secs(60);

/// The longest address to go on to that a ticket keeps.
const LONGEST_RETURN: usize = 2_000;

/// What the cookies of tickets begin with; the beginning of the state follows, so that tabs do not get in each other's way.
const TICKET: &str = "__Host-authgate-ticket-";
const MARK: usize = 12;

/// The reason why a callback fails, for the person.
#[derive(Debug, Clone, Copy)]
enum Failed {
    /// The state is unknown, expired or spent, or the provider's response is rejected.
    Unusable,
    /// The person or the provider denied access.
    Denied,
    /// The provider cannot be reached.
    Unavailable,
    /// There is no account for the person, and registration is closed.
    NoAccount,
    /// Another account is linked to the person.
    Taken,
    /// The person is not who is signed in.
    Another,
}

impl Failed {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::Unusable => (StatusCode::BAD_REQUEST, "provider-unusable"),
            Self::Denied => (StatusCode::FORBIDDEN, "provider-denied"),
            Self::Unavailable => (StatusCode::BAD_GATEWAY, "provider-away"),
            Self::NoAccount => (StatusCode::FORBIDDEN, "provider-no-account"),
            Self::Taken => (StatusCode::BAD_REQUEST, "provider-taken"),
            Self::Another => (StatusCode::BAD_REQUEST, "provider-another"),
        }
    }
}

impl Pages {
    fn provider(&self, name: &str) -> Result<&ProviderClient, Failure> {
        let found = self.providers.iter().find(|provider| provider.config().name == name);
        found.ok_or_else(|| Kind::NotFound.into())
    }
}

impl Visit<'_> {
    /// Returns a button for each provider, which leads on to `return_to`.
    pub(super) fn provider_buttons(&self, query: &str) -> Vec<ProviderButton> {
        self.buttons_of(query, |_| true)
    }

    /// Returns a button for each provider whose name `is_one` takes, which leads on to `return_to`.
    pub(super) fn buttons_of(&self, query: &str, is_one: impl Fn(&str) -> bool) -> Vec<ProviderButton> {
        let button = |provider: &ProviderClient| ProviderButton {
            title: provider.config().title.clone(),
            address: format!("{}/provider/{}{query}", self.pages.loaded.ui, provider.config().name),
        };
        let providers = self.pages.providers.iter();
        providers.filter(|provider| is_one(&provider.config().name)).map(button).collect()
    }

    fn redirect_uri(&self, name: &str) -> String {
        let origin = &self.pages.loaded.config.public_url.origin;
        format!("{origin}{}/provider/{name}/callback", self.pages.loaded.ui)
    }

    fn now(&self) -> UnixMillis {
        self.pages.access.now().time
    }

    /// Returns the page about a failed sign-in by a provider.
    fn failed_by_provider(&self, failed: Failed, why: &str) -> PageResult {
        tracing::info!(request.id = self.request.request_id, reason = why, "sign-in by a provider failed");
        let (status, text) = failed.parts();
        let request_id = Some(self.request.request_id.to_owned());
        self.show(status, &Text { title: "page-provider-failed", text, request_id })
    }

    /// Leads to a new proof, and then to the page of providers.
    fn prove_for_providers(&self) -> Response<Bytes> {
        let ui = &self.pages.loaded.ui;
        see_other(&format!("{ui}/prove{}", query_of(&format!("{ui}/account/providers"))))
    }

    pub(super) async fn redirect_to_provider(&mut self, name: &str) -> PageResult {
        let provider = self.pages.provider(name)?;
        let return_to = self.destination(&self.query("return_to"));
        self.pages.accounts.count_provider_request(self.client.address).await.map_err(Failure::from)?;
        let (link, proof) = (self.query("link"), self.query("proof"));
        let purpose = if link.is_empty() && proof.is_empty() {
            TicketPurpose::SignIn
        } else {
            let person = self.person()?;
            // Only from our own page: another site's link would make a link with whomever it has signed in there.
            if !self.is_from_form(&person, if link.is_empty() { &proof } else { &link }) {
                return Err(Kind::CrossSiteRequest.into());
            }
            if link.is_empty() {
                return self.begin(provider, return_to, TicketPurpose::Proof(person.session)).await;
            }
            if let Err(error) = self.pages.accounts.may_change(&person).await {
                return match error {
                    AccountError::Unproved(_) => Ok(self.prove_for_providers()),
                    error => Err(error.into()),
                };
            }
            TicketPurpose::Link(person.session)
        };
        self.begin(provider, return_to, purpose).await
    }

    async fn begin(
        &mut self,
        provider: &ProviderClient,
        return_to: Option<String>,
        purpose: TicketPurpose,
    ) -> PageResult {
        let (pages, now) = (self.pages, self.now());
        let name = &provider.config().name;
        let expires_at = now + millis(TICKET_HOLDS_FOR);
        // A browser keeps no cookie that is longer than 4,096 bytes.
        let return_to = return_to.filter(|target| target.len() <= LONGEST_RETURN);
        let ticket = Ticket::new(&*pages.random, name, return_to, purpose, expires_at);
        let state = ticket.state.as_str();
        let (nonce, challenge) = (pages.tickets.nonce(state), pages.tickets.challenge(state));
        let redirect_uri = self.redirect_uri(name);
        let request = AuthorizationRequest {
            redirect_uri: &redirect_uri,
            state,
            nonce: &nonce,
            challenge: &challenge,
            is_proof: matches!(purpose, TicketPurpose::Proof(_)),
        };
        match provider.authorization_url(&request, now).await {
            Ok(address) => {
                let cookie = ticket_cookie(state, &pages.tickets.seal(&ticket), TICKET_HOLDS_FOR.as_secs());
                self.add_cookie(cookie);
                Ok(see_other(&address))
            }
            Err(error) => self.failed_by_provider(Failed::Unavailable, &error.to_string()),
        }
    }

    /// Returns the ticket that this browser has for a state.
    fn ticket(&self, name: &str, state: &str) -> Option<Ticket> {
        if !is_state(state) {
            return None;
        }
        let lines = self.request.request.headers().get_all(header::COOKIE);
        let Credential::Cookie(sealed) = Credential::of_cookies(lines, &ticket_name(state)) else {
            return None;
        };
        let sealed = std::str::from_utf8(sealed).ok()?;
        let ticket = self.pages.tickets.open(sealed, state, self.now())?;
        (ticket.provider == name).then_some(ticket)
    }

    pub(super) async fn provider_callback(&mut self, name: &str) -> PageResult {
        let (provider, state) = (self.pages.provider(name)?, self.query("state"));
        if ["state", "iss", "code", "error"].into_iter().any(|name| self.is_repeated(name)) {
            return self.failed_by_provider(Failed::Unusable, "a parameter came twice");
        }
        let Some(ticket) = self.ticket(name, &state) else {
            return self.failed_by_provider(Failed::Unusable, "the state is not of this browser");
        };
        // Whatever comes of it, it is good once: here, and at every gateway.
        self.add_cookie(ticket_cookie(&state, "", 0));
        let (pages, now) = (self.pages, self.now());
        match pages.accounts.spend_state(&state, self.client.address).await {
            Ok(()) => {}
            Err(AccountError::Refused(Kind::BadRequest)) => {
                return self.failed_by_provider(Failed::Unusable, "the state came before");
            }
            Err(error) => return Err(error.into()),
        }
        let said = Some(self.query("iss")).filter(|iss| !iss.is_empty());
        if let Err(error) = provider.check_issuer(said.as_deref(), now).await {
            return self.failed_by_provider(of_provider(&error), &error.to_string());
        }
        match self.query("error").as_str() {
            "" => {}
            "access_denied" => return self.failed_by_provider(Failed::Denied, "access_denied"),
            error @ ("server_error" | "temporarily_unavailable") => {
                return self.failed_by_provider(Failed::Unavailable, error);
            }
            _ => return self.failed_by_provider(Failed::Unusable, "the provider refused"),
        }
        let (code, redirect_uri) = (self.query("code"), self.redirect_uri(name));
        if code.is_empty() {
            return self.failed_by_provider(Failed::Unusable, "there is no code");
        }
        let (verifier, nonce) = (pages.tickets.verifier(&state), pages.tickets.nonce(&state));
        let identity = match provider.identify(&code, &redirect_uri, &verifier, &nonce, now).await {
            Ok(identity) => identity,
            Err(error) => return self.failed_by_provider(of_provider(&error), &error.to_string()),
        };
        let begun_in = match ticket.purpose() {
            Some(TicketPurpose::SignIn) => None,
            Some(TicketPurpose::Link(session) | TicketPurpose::Proof(session)) => Some(session),
            None => return self.failed_by_provider(Failed::Unusable, "the ticket names no session"),
        };
        if let Some(session) = begun_in {
            let Ok(person) = self.person() else {
                return self.failed_by_provider(Failed::Unusable, "nobody is signed in any more");
            };
            if session != person.session {
                return self.failed_by_provider(Failed::Unusable, "it was begun in another session");
            }
            if matches!(ticket.purpose(), Some(TicketPurpose::Proof(_))) {
                let begun_at = ticket.expires_at() - millis(TICKET_HOLDS_FOR);
                return self.prove_by_provider(&person, &ticket, &state, &identity, begun_at).await;
            }
            let linked =
                pages.accounts.link_provider(&person, provider.config(), &identity, self.client.address);
            return match linked.await {
                Ok(()) => Ok(see_other(&format!("{}/account/providers?done=linked", pages.loaded.ui))),
                Err(AccountError::Refused(Kind::Conflict)) => {
                    self.failed_by_provider(Failed::Taken, "somebody else is linked")
                }
                Err(AccountError::Unproved(_)) => Ok(self.prove_for_providers()),
                Err(error) => Err(error.into()),
            };
        }
        let query = ticket.return_to.as_deref().map(query_of).unwrap_or_default();
        match pages.accounts.sign_in_by_provider(provider.config(), &identity, self.client).await {
            Ok(session) => {
                self.welcome(session);
                // The ticket is taken away with it.
                self.add_cookie(ticket_cookie(&state, "", 0));
                Ok(see_other(ticket.return_to.as_deref().unwrap_or(self.after_login())))
            }
            Err(AccountError::FactorNeeded(asked)) => {
                self.set_challenge_cookie(&asked.token);
                let place = match asked.purpose {
                    ChallengePurpose::Enrolment => "account/factors",
                    _ => "factor",
                };
                Ok(see_other(&format!("{}/{place}{query}", pages.loaded.ui)))
            }
            Err(AccountError::Refused(Kind::RegistrationClosed)) => {
                self.failed_by_provider(Failed::NoAccount, "there is no account, and none is made")
            }
            Err(AccountError::Refused(Kind::InsufficientRole)) => {
                self.failed_by_provider(Failed::NoAccount, "the account is disabled")
            }
            Err(AccountError::Refused(Kind::Conflict)) => {
                self.failed_by_provider(Failed::Taken, "the account was changed meanwhile")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Steps the session up of a person whom their provider has identified again since `begun_at`.
    async fn prove_by_provider(
        &mut self,
        person: &SignedIn,
        ticket: &Ticket,
        state: &str,
        identity: &Identity,
        begun_at: UnixMillis,
    ) -> PageResult {
        // It must have asked for this, and one of OpenID Connect says when it has (OpenID Connect Core 1.0, section 3.1.2.1).
        let is_old = |at: UnixMillis| at < begun_at - millis(CLOCKS_APART);
        if identity.authenticated_at.map_or(identity.tells_time, is_old) {
            return self.failed_by_provider(Failed::Unusable, "the provider has not asked anew");
        }
        let accounts = &self.pages.accounts;
        match accounts.prove_by_provider(person, identity, self.client.address).await {
            Ok(session) => {
                self.set_session_cookie(session.cookie);
                // The ticket is taken away with it.
                self.add_cookie(ticket_cookie(state, "", 0));
                Ok(see_other(ticket.return_to.as_deref().unwrap_or(self.after_login())))
            }
            Err(AccountError::Refused(Kind::Conflict)) => {
                self.failed_by_provider(Failed::Another, "it is not who is signed in")
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn providers_page(&mut self) -> Result<Providers, Failure> {
        let person = self.person()?;
        let links = self.pages.accounts.links(&person).await?;
        let title = |name: &str| {
            let known = self.pages.providers.iter().find(|provider| provider.config().name == name);
            known.map_or_else(|| name.to_owned(), |provider| provider.config().title.clone())
        };
        let entry = |link: crate::store::Link| LinkEntry {
            id: link.id.to_string(),
            title: title(&link.provider),
            label: link.label,
            created_on: minute(link.created_at),
        };
        Ok(Providers {
            form: self.form(&person),
            links: links.into_iter().map(entry).collect(),
            buttons: self.provider_buttons(&format!("?link={}", self.form(&person).token)),
            ..Providers::default()
        })
    }

    pub(super) async fn show_providers(&mut self) -> PageResult {
        let notice = self.notice();
        let page = self.providers_page().await?;
        self.show(StatusCode::OK, &Providers { notice, ..page })
    }

    pub(super) async fn unlink(&mut self) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        let accounts = &self.pages.accounts;
        match accounts.unlink_provider(&person, &sent.text("id"), self.client.address).await {
            Ok(()) => Ok(see_other(&format!("{}/account/providers?done=removed", self.pages.loaded.ui))),
            Err(AccountError::Explained(Kind::Conflict, _)) => {
                let message = view::last_link();
                let page = self.providers_page().await?;
                self.show(StatusCode::CONFLICT, &Providers { wrong: Wrong::of(message), ..page })
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn of_provider(error: &ProviderError) -> Failed {
    match error {
        ProviderError::Unavailable(_) => Failed::Unavailable,
        ProviderError::Rejected(_) => Failed::Unusable,
    }
}

fn ticket_name(state: &str) -> String {
    format!("{TICKET}{}", &state[..MARK.min(state.len())])
}

fn ticket_cookie(state: &str, value: &str, age: u64) -> Option<HeaderValue> {
    let name = ticket_name(state);
    HeaderValue::try_from(format!("{name}={value}; Path=/; Max-Age={age}; Secure; HttpOnly; SameSite=Lax"))
        .ok()
}
