//! The pages on the way in and out: login, registration, forgotten passwords, confirmed addresses, sign-out.

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    endpoint::PageResult,
    message::Message,
    query_of, see_other,
    view::{Forgot, Form, Login, Logout, Register, Reset, Verify, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::Failure,
    account::{AccountError, PendingChallenge, Registration},
    config,
    error::Kind,
    store::ChallengePurpose,
    types::Secret,
};

const OK: StatusCode = StatusCode::OK;

impl Visit<'_> {
    /// Returns the form of a page that leads on to where the query says.
    pub(super) fn form_by_query(&mut self) -> Form {
        let return_to = self.destination(&self.query("return_to"));
        self.visitor_form(return_to)
    }

    /// Leads on to where the person wants to go.
    pub(super) fn go_on(&self, sent: &Sent) -> Response<Bytes> {
        let to = self.destination(&sent.text("return_to"));
        see_other(to.as_deref().unwrap_or(self.after_login()))
    }

    /// Leads to where a factor is shown, or got.
    fn ask(&mut self, asked: &PendingChallenge, sent: &Sent) -> Response<Bytes> {
        self.set_challenge_cookie(&asked.token);
        let to = self.destination(&sent.text("return_to"));
        let query = to.as_deref().map(query_of).unwrap_or_default();
        let place = match asked.purpose {
            ChallengePurpose::Enrolment => "account/factors",
            _ => "factor",
        };
        see_other(&format!("{}/{place}{query}", self.pages.loaded.ui))
    }

    pub(super) fn form_again(&mut self, sent: &Sent) -> Form {
        let return_to = self.destination(&sent.text("return_to"));
        self.visitor_form(return_to)
    }

    fn has_mail(&self) -> bool {
        self.pages.accounts.config.email.is_some()
    }

    fn login_page(&self, form: Form) -> Login {
        let config = &self.pages.accounts.config;
        Login {
            by_email: config.login_by.email,
            has_mail: self.has_mail(),
            is_open: config.registration == config::Registration::Open,
            providers: self.provider_buttons(&form.query),
            takes_passkeys: self.pages.accounts.takes_passkeys(),
            notice: (self.query("done") == "ended").then_some("challenge-ended"),
            signed_in_as: self.signed_in().ok().map(|principal| principal.name.clone()),
            continue_to: form.return_to.clone().unwrap_or_else(|| self.after_login().to_owned()),
            form,
            ..Login::default()
        }
    }

    pub(super) fn show_login(&mut self) -> PageResult {
        let form = self.form_by_query();
        self.show(OK, &self.login_page(form))
    }

    pub(super) async fn login(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let (username, remember) = (sent.text("username"), sent.is_set("remember"));
        if sent.text("method") == "passkey" {
            let asked = self.pages.accounts.begin_passkey_login(true, remember, self.client.address).await;
            return Ok(self.ask(&asked.map_err(Failure::from)?, &sent));
        }
        let missing = ["username", "password"].into_iter().find(|name| match *name {
            "username" => username.is_empty(),
            _ => sent.secret("password").is_none(),
        });
        let (status, message) = match (missing, sent.secret("password")) {
            (None, Some(password)) => {
                let signed_in =
                    self.pages.accounts.sign_in(&username, &password, remember, self.client).await;
                match signed_in {
                    Ok(session) => {
                        self.welcome(session);
                        return Ok(self.go_on(&sent));
                    }
                    Err(AccountError::FactorNeeded(asked)) => return Ok(self.ask(&asked, &sent)),
                    Err(AccountError::PasswordChangeNeeded(token)) => {
                        return Ok(self.to_new_password(&token, &sent));
                    }
                    Err(error) => (self.status_of(&error), Message::of(&error, "username")),
                }
            }
            (name, _) => {
                (StatusCode::BAD_REQUEST, Message::about(name.unwrap_or("password"), "error-missing"))
            }
        };
        let form = self.form_again(&sent);
        let page = Login { wrong: Wrong::of(message), username, remember, ..self.login_page(form) };
        self.show(status, &page)
    }

    /// Leads on to where another password is chosen.
    pub(super) fn to_new_password(&self, token: &Secret, sent: &Sent) -> Response<Bytes> {
        let to = self.destination(&sent.text("return_to"));
        let query = to.as_deref().map(query_of).unwrap_or_else(|| "?".to_owned());
        see_other(&format!("{}/reset{query}&token={}", self.pages.loaded.ui, token.expose()))
    }

    /// Returns the status of a failure, and logs what an operator should know.
    pub(super) fn status_of(&mut self, error: &AccountError) -> StatusCode {
        self.retry_after = error.retry_after();
        if error.is_ours() {
            tracing::warn!(request.id = self.request.request_id, reason = %error, "{}", error.kind().message());
        }
        error.kind().status()
    }

    /// Returns the form to register by; without it if nobody may, with this invitation or none.
    async fn register_page(&self, form: Form, invitation: String) -> Result<Register, Failure> {
        let accounts = &self.pages.accounts;
        let is_open = accounts.config.registration == config::Registration::Open;
        let is_closed = !is_open && (invitation.is_empty() || !accounts.is_invited(&invitation).await?);
        let min_length = accounts.config.password.min_length;
        // Their way does not carry an invitation.
        let providers = if invitation.is_empty() { self.provider_buttons(&form.query) } else { Vec::new() };
        Ok(Register { form, invitation, is_closed, min_length, providers, ..Register::default() })
    }

    pub(super) async fn show_register(&mut self) -> PageResult {
        let form = self.form_by_query();
        let page = self.register_page(form, self.query("invitation")).await?;
        if page.is_closed {
            let kind =
                if page.invitation.is_empty() { Kind::RegistrationClosed } else { Kind::InvalidMailToken };
            let wrong = Wrong::of(Message::of(&AccountError::Refused(kind), "username"));
            return self.show(StatusCode::FORBIDDEN, &Register { wrong, ..page });
        }
        self.show(OK, &page)
    }

    pub(super) async fn register(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let (username, email) = (sent.text("username"), sent.text("email"));
        let (status, message) = match (username.is_empty(), sent.secret("password")) {
            (false, Some(password)) => {
                let registration = Registration {
                    username: username.clone(),
                    password,
                    password_confirm: None,
                    email: Some(email.clone()).filter(|email| !email.is_empty()),
                    roles: None,
                    invitation: sent.secret("invitation"),
                };
                match self.pages.accounts.register_browser(registration, self.client).await {
                    Ok(session) => {
                        self.welcome(session);
                        return Ok(self.go_on(&sent));
                    }
                    Err(AccountError::FactorNeeded(asked)) => return Ok(self.ask(&asked, &sent)),
                    Err(error) => (self.status_of(&error), Message::of(&error, "username")),
                }
            }
            (is_missing, _) => {
                let field = if is_missing { "username" } else { "password" };
                (StatusCode::BAD_REQUEST, Message::about(field, "error-missing"))
            }
        };
        let form = self.form_again(&sent);
        let page = self.register_page(form, sent.text("invitation")).await?;
        let page = Register { wrong: Wrong::of(message), username, email, ..page };
        self.show(status, &page)
    }

    pub(super) fn show_forgot(&mut self) -> PageResult {
        let form = self.form_by_query();
        self.show(OK, &Forgot { form, has_mail: self.has_mail(), ..Forgot::default() })
    }

    pub(super) async fn forgot(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let email = sent.text("email");
        let asked = self.pages.accounts.clone().forgot_password(&email, self.client.address).await;
        let form = self.form_again(&sent);
        match asked {
            Ok(()) => {
                match &form.return_to {
                    Some(target) => self.keep_destination(target),
                    None => self.forget_destination(),
                }
                self.show(OK, &Forgot { form, has_mail: true, is_done: true, ..Forgot::default() })
            }
            Err(error) => {
                let status = self.status_of(&error);
                let wrong = Wrong::of(Message::of(&error, "email"));
                self.show(status, &Forgot { form, has_mail: true, wrong, email, is_done: false })
            }
        }
    }

    async fn reset_page(&self, form: Form, token: String) -> Reset {
        let accounts = &self.pages.accounts;
        // Without a name the page is as good, but for password managers.
        let account = accounts.reset_for(&token, self.client.address).await.ok().flatten();
        let account = account.map(|name| name.to_string()).unwrap_or_default();
        Reset { form, token, account, min_length: accounts.config.password.min_length, ..Reset::default() }
    }

    pub(super) async fn show_reset(&mut self) -> PageResult {
        let return_to = self.destination(&self.query("return_to")).or_else(|| self.kept_destination());
        let (form, token) = (self.visitor_form(return_to), self.query("token"));
        let page = self.reset_page(form, token).await;
        self.show(OK, &page)
    }

    pub(super) async fn reset(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let token = sent.text("token");
        let (status, message) = match sent.secret("password") {
            Some(password) => {
                match self.pages.accounts.reset_password(&token, &password, self.client.address).await {
                    Ok(()) => {
                        // Its sessions have ended, this browser's among them if there was one.
                        if self.signed_in().is_err() {
                            self.remove_session_cookie();
                        }
                        if self.kept_destination().is_some() {
                            self.forget_destination();
                        }
                        let form = self.form_again(&sent);
                        return self.show(OK, &Reset { form, is_done: true, ..Reset::default() });
                    }
                    Err(error) => (self.status_of(&error), Message::of(&error, "password")),
                }
            }
            None => (StatusCode::BAD_REQUEST, Message::about("password", "error-missing")),
        };
        let form = self.form_again(&sent);
        let page = Reset { wrong: Wrong::of(message), ..self.reset_page(form, token).await };
        self.show(status, &page)
    }

    pub(super) fn show_verify(&mut self) -> PageResult {
        let (form, token) = (self.visitor_form(None), self.query("token"));
        self.show(OK, &Verify { form, token, ..Verify::default() })
    }

    pub(super) async fn verify(&mut self) -> PageResult {
        let sent = self.sent_by_visitor()?;
        let token = sent.text("token");
        match self.pages.accounts.verify_email(&token, self.client.address).await {
            Ok(()) => {
                let continue_to = self.after_login().to_owned();
                self.show(OK, &Verify { is_done: true, continue_to, ..Verify::default() })
            }
            Err(error) => {
                let status = self.status_of(&error);
                let form = self.visitor_form(None);
                let wrong = Wrong::of(Message::of(&error, "token"));
                self.show(status, &Verify { form, wrong, token, ..Verify::default() })
            }
        }
    }

    pub(super) fn show_logout(&mut self) -> PageResult {
        match self.person() {
            Ok(person) => self.show(OK, &Logout { form: self.form(&person), is_done: false }),
            Err(failure) if failure.problem.kind == Kind::Unauthenticated => {
                self.show(OK, &Logout { is_done: true, ..Logout::default() })
            }
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn logout(&mut self) -> PageResult {
        match self.person() {
            Ok(person) => {
                self.sent_by(&person)?;
                self.pages.accounts.logout(&person, self.client.address).await.map_err(Failure::from)?;
            }
            // The session has ended. Without the cookie, the request may be another site's.
            Err(failure) if failure.problem.kind == Kind::Unauthenticated => {
                if !self.has_cookie() {
                    return self.show(OK, &Logout { is_done: true, ..Logout::default() });
                }
            }
            Err(failure) => return Err(failure),
        }
        self.remove_session_cookie();
        self.show(OK, &Logout { is_done: true, ..Logout::default() })
    }
}
