//! Showing anew who one is, for what asks for a recent proof.

use http::StatusCode;

use super::{
    endpoint::PageResult,
    message::Message,
    see_other,
    view::{Form, Prove, Wrong},
    visit::Visit,
};
use crate::{account::AccountError, error::Kind, token::SignedIn};

impl Visit<'_> {
    fn prove_page(&self, person: &SignedIn, return_to: Option<String>) -> Prove {
        let account = self.signed_in().map(|principal| principal.name.clone()).unwrap_or_default();
        Prove { form: Form { return_to, ..self.form(person) }, account, ..Prove::default() }
    }

    pub(super) async fn show_prove(&mut self) -> PageResult {
        let person = self.person()?;
        let page = self.prove_page(&person, self.destination(&self.query("return_to")));
        self.show(StatusCode::OK, &page)
    }

    pub(super) async fn prove(&mut self) -> PageResult {
        let person = self.person()?;
        let sent = self.sent_by(&person)?;
        let return_to = self.destination(&sent.text("return_to"));
        let (status, message) = match sent.secret("password") {
            Some(password) => {
                let proved = self.pages.accounts.prove_again(&person, &password, self.client.address).await;
                match proved {
                    Ok(session) => {
                        self.set_session_cookie(session.cookie);
                        return Ok(see_other(return_to.as_deref().unwrap_or(self.after_login())));
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
        let page = Prove { wrong: Wrong::of(message), ..self.prove_page(&person, return_to) };
        self.show(status, &page)
    }
}
