//! The second step of a login, by whatever the account has for it.

use http::StatusCode;

use super::{
    endpoint::PageResult,
    message::Message,
    query_of, see_other,
    view::{Factor, Form, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::Failure,
    account::{AccountError, ChallengeResponse, Issued, Method, PendingChallenge, Responder},
    error::Kind,
    store::ChallengePurpose,
};

/// Reads a response from a form; none where nothing is filled in.
pub(super) fn response(sent: &Sent, method: Method) -> Option<ChallengeResponse> {
    let code = sent.secret("code");
    let credential = sent.secret("credential").and_then(|shown| serde_json::from_str(shown.expose()).ok());
    if code.is_none() && credential.is_none() {
        return None;
    }
    Some(ChallengeResponse { method, code, credential, remember_device: sent.is_set("remember_device") })
}

/// Returns the page for a response by this method, or by the first that there is.
pub(super) fn page(
    asked: &[Method],
    public_key: Option<&serde_json::Value>,
    wanted: Option<Method>,
    form: Form,
    place: &'static str,
) -> Factor {
    let method = wanted.filter(|method| asked.contains(method)).or(asked.first().copied());
    let others = asked.iter().filter(|other| Some(**other) != method).map(|other| other.name());
    let is_passkey = method == Some(Method::Passkey);
    Factor {
        form,
        place,
        method: method.map(Method::name).unwrap_or_default(),
        others: others.collect(),
        options: public_key.filter(|_| is_passkey).map(ToString::to_string),
        ..Factor::default()
    }
}

/// Returns what is said of a failure about a code.
pub(super) fn message(error: &AccountError) -> Message {
    match error {
        AccountError::Refused(Kind::InvalidCredentials) => Message::about("code", "error-code"),
        error => Message::of(error, "code"),
    }
}

impl Visit<'_> {
    /// Returns the login page's address, which says that the second step took too long.
    fn begin_again(&mut self, return_to: Option<&str>) -> PageResult {
        self.remove_challenge_cookie();
        let query = return_to.map(query_of).unwrap_or_default();
        let done = if query.is_empty() { "?done=ended" } else { "&done=ended" };
        Ok(see_other(&format!("{}/login{query}{done}", self.pages.loaded.ui)))
    }

    /// Returns what this browser is asked for; none once that has ended.
    async fn asked(&self) -> Result<Option<PendingChallenge>, Failure> {
        let Some(token) = self.challenge() else { return Ok(None) };
        match self.pages.accounts.pending_challenge(&token, None, self.client.address).await {
            Ok(asked) => Ok(Some(asked)),
            Err(AccountError::Refused(Kind::InvalidCredentials)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn factor_page(&self, asked: &PendingChallenge, wanted: Option<Method>, form: Form) -> Factor {
        let may_remember =
            asked.purpose == ChallengePurpose::Login && self.pages.accounts.remembers_devices();
        let page = page(&asked.methods, asked.public_key.as_ref(), wanted, form, "factor");
        Factor { may_remember, ..page }
    }

    pub(super) async fn show_factor(&mut self) -> PageResult {
        let form = self.form_by_query();
        let Some(asked) = self.asked().await? else {
            return self.begin_again(form.return_to.as_deref());
        };
        if asked.purpose == ChallengePurpose::Enrolment {
            return Ok(see_other(&format!("{}/account/factors{}", self.pages.loaded.ui, form.query)));
        }
        let wanted = Method::parse(&self.query("method"));
        let page = self.factor_page(&asked, wanted, form);
        // Whoever came for their passkey has asked for it already.
        let is_begun = asked.purpose == ChallengePurpose::Passkey;
        let is_sent = self.query("done") == "sent";
        self.show(StatusCode::OK, &Factor { is_begun, is_sent, ..page })
    }

    pub(super) async fn factor(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let form = self.form_again(&sent);
        let (Some(token), Some(asked)) = (self.challenge(), self.asked().await?) else {
            return self.begin_again(form.return_to.as_deref());
        };
        let method = Method::parse(&sent.text("method")).unwrap_or(Method::Totp);
        let responder = Responder { is_page: true, person: None };
        if sent.is_set("send") {
            let mailed = self.pages.accounts.mail_code(&token, responder, self.client.address).await;
            match mailed {
                Ok(()) => {}
                Err(AccountError::Refused(Kind::InvalidCredentials)) => {
                    return self.begin_again(form.return_to.as_deref());
                }
                Err(error) => return Err(error.into()),
            }
            let query = form.return_to.as_deref().map(query_of).unwrap_or_else(|| "?".to_owned());
            let ui = &self.pages.loaded.ui;
            return Ok(see_other(&format!("{ui}/factor{query}&method=email&done=sent")));
        }
        let (status, message) = match response(&sent, method) {
            Some(response) => {
                match self.pages.accounts.respond(&token, response, responder, self.client).await {
                    Ok(Issued::Browser(session)) => {
                        self.welcome(*session);
                        return Ok(self.go_on(&sent));
                    }
                    Ok(_) => return Err(Kind::Internal.into()),
                    Err(AccountError::PasswordChangeNeeded(token)) => {
                        return Ok(self.to_new_password(&token, &sent));
                    }
                    Err(error) => (self.status_of(&error), message(&error)),
                }
            }
            None => (StatusCode::BAD_REQUEST, Message::about("code", "error-missing")),
        };
        // Perhaps that was the last try.
        if self.asked().await?.is_none() {
            return self.begin_again(form.return_to.as_deref());
        }
        let page = self.factor_page(&asked, Some(method), form);
        self.show(status, &Factor { wrong: Wrong::of(message), is_sent: method == Method::Email, ..page })
    }
}
