//! Showing anew who one is, for what asks for a recent proof or two factors: by a factor where the account has one, else by the password.

use http::StatusCode;

use super::{
    endpoint::PageResult,
    factor::{message, page, response},
    message::Message,
    query_of, see_other,
    view::{Factor, Form, Prove, ProviderButton, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::Failure,
    account::{AccountError, Issued, Method, PendingChallenge, Responder},
    error::Kind,
    token::SignedIn,
    types::Secret,
};

impl Visit<'_> {
    fn prove_page(&self, person: &SignedIn, return_to: Option<String>) -> Prove {
        let account = self.signed_in().map(|principal| principal.name.clone()).unwrap_or_default();
        Prove { form: self.form_to(person, return_to), account, ..Prove::default() }
    }

    /// Returns the providers that an account without a password is linked to: their word is its only proof.
    async fn providers_to_prove_by(
        &self,
        person: &SignedIn,
        form: &Form,
    ) -> Result<Vec<ProviderButton>, Failure> {
        if self.pages.accounts.me(person).await.map_err(Failure::from)?.password_hash.is_some() {
            return Ok(Vec::new());
        }
        let links = self.pages.accounts.links(person).await.map_err(Failure::from)?;
        let query = format!("?proof={}&{}", form.token, form.query.trim_start_matches('?'));
        Ok(self.buttons_of(&query, |name| links.iter().any(|link| link.provider == name)))
    }

    /// Returns a form of who is signed in that leads on.
    pub(super) fn form_to(&self, person: &SignedIn, return_to: Option<String>) -> Form {
        let query = return_to.as_deref().map(query_of).unwrap_or_default();
        Form { return_to, query, ..self.form(person) }
    }

    /// Returns the challenge of this session that the browser has a token of; none once it has ended.
    async fn step_up(&self, person: &SignedIn) -> Result<Option<(Secret, PendingChallenge)>, Failure> {
        let Some(token) = self.challenge() else { return Ok(None) };
        match self.pages.accounts.pending_challenge(&token, Some(person.session), self.client.address).await {
            Ok(asked) => Ok(Some((token, asked))),
            Err(AccountError::Refused(Kind::InvalidCredentials)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn show_prove(&mut self) -> PageResult {
        let person = self.person()?;
        let return_to = self.destination(&self.query("return_to"));
        let methods = self.pages.accounts.proof_methods(&person).await.map_err(Failure::from)?;
        if methods == [Method::Password] {
            if self.query("mfa") == "yes" {
                // A factor is asked for, and there is none to show.
                let query = return_to.as_deref().map(query_of).unwrap_or_default();
                return Ok(see_other(&format!("{}/account/factors{query}", self.pages.loaded.ui)));
            }
            let page = self.prove_page(&person, return_to);
            let providers = self.providers_to_prove_by(&person, &page.form).await?;
            return self.show(StatusCode::OK, &Prove { providers, ..page });
        }
        let wanted = Method::parse(&self.query("method"));
        let begun = self.step_up(&person).await?;
        let options = begun.as_ref().and_then(|(_, asked)| asked.public_key.as_ref());
        let page = page(&methods, options, wanted, self.form_to(&person, return_to), "prove");
        let done = self.query("done");
        let (is_begun, is_sent) = (done == "begun", done == "sent");
        self.show(StatusCode::OK, &Factor { is_begun, is_sent, ..page })
    }

    pub(super) async fn prove(&mut self) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        let return_to = self.destination(&sent.text("return_to"));
        match Method::parse(&sent.text("method")) {
            Some(method) => self.prove_by_factor(&person, &sent, return_to, method).await,
            None => {
                let methods = self.pages.accounts.proof_methods(&person).await.map_err(Failure::from)?;
                if methods != [Method::Password] {
                    // A factor was added since the page was shown.
                    let query = return_to.as_deref().map(query_of).unwrap_or_default();
                    return Ok(see_other(&format!("{}/prove{query}", self.pages.loaded.ui)));
                }
                self.prove_by_password(&person, &sent, return_to).await
            }
        }
    }

    async fn prove_by_factor(
        &mut self,
        person: &SignedIn,
        sent: &Sent,
        return_to: Option<String>,
        method: Method,
    ) -> PageResult {
        let (accounts, address) = (self.pages.accounts.clone(), self.client.address);
        let (token, asked) = match self.step_up(person).await? {
            Some(begun) => begun,
            None => {
                let asked = accounts.begin_step_up(person, address).await.map_err(Failure::from)?;
                self.set_challenge_cookie(&asked.token);
                (asked.token.clone(), asked)
            }
        };
        let responder = Responder { is_page: true, person: Some(person) };
        let response = response(sent, method);
        let is_mail = method == Method::Email && sent.is_set("send");
        if is_mail {
            accounts.mail_code(&token, responder, address).await.map_err(Failure::from)?;
        }
        if is_mail || (method == Method::Passkey && response.is_none()) {
            let query = return_to.as_deref().map(query_of).unwrap_or_else(|| "?".to_owned());
            let (ui, done) = (&self.pages.loaded.ui, if is_mail { "sent" } else { "begun" });
            return Ok(see_other(&format!("{ui}/prove{query}&method={}&done={done}", method.name())));
        }
        let (status, message) = match response {
            Some(response) => match accounts.respond(&token, response, responder, self.client).await {
                Ok(Issued::Browser(session)) => {
                    self.set_session_cookie(session.cookie);
                    self.remove_challenge_cookie();
                    return Ok(self.go_on(sent));
                }
                Ok(_) => return Err(Kind::Internal.into()),
                Err(error) => (self.status_of(&error), message(&error)),
            },
            None => (StatusCode::BAD_REQUEST, Message::about("code", "error-missing")),
        };
        let form = self.form_to(person, return_to);
        let page = page(&asked.methods, asked.public_key.as_ref(), Some(method), form, "prove");
        self.show(status, &Factor { wrong: Wrong::of(message), is_sent: method == Method::Email, ..page })
    }

    async fn prove_by_password(
        &mut self,
        person: &SignedIn,
        sent: &Sent,
        return_to: Option<String>,
    ) -> PageResult {
        let (status, message) = match sent.secret("password") {
            Some(password) => {
                let proved = self.pages.accounts.prove_again(person, &password, self.client.address).await;
                match proved {
                    Ok(session) => {
                        self.set_session_cookie(session.cookie);
                        return Ok(self.go_on(sent));
                    }
                    Err(error) if error.kind() == Kind::Unauthenticated => return Err(error.into()),
                    Err(AccountError::Refused(Kind::InvalidCredentials)) => {
                        (StatusCode::UNAUTHORIZED, Message::about("password", "error-current-password"))
                    }
                    Err(error) => (self.status_of(&error), Message::of(&error, "password")),
                }
            }
            None => (StatusCode::BAD_REQUEST, Message::about("password", "error-missing")),
        };
        let page = Prove { wrong: Wrong::of(message), ..self.prove_page(person, return_to) };
        self.show(status, &page)
    }
}
