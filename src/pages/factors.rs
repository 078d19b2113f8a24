//! The second factors of an account: shown, begun, confirmed, removed. Whoever must have one to sign in gets it here, too.

use http::StatusCode;

use super::{
    account::minute,
    endpoint::PageResult,
    factor::message,
    message::Message,
    query_of, see_other,
    view::{FactorEntry, Factors, Form, NewFactor, RecoveryCodes, Wrong},
    visit::{Sent, Visit},
};
use crate::{
    access::Failure,
    account::{AccountError, Enroller, FactorConfirmed, FactorProof, FactorSetup, Issued},
    error::Kind,
    factor::qr_code,
    store::{ChallengePurpose, FactorKind},
    token::SignedIn,
    types::Secret,
};

/// Characters of a secret between two spaces, as it is typed.
const GROUP: usize = 4;

/// Whose factors they are.
enum Owner {
    Person(SignedIn),
    Challenge(Secret),
}

impl Owner {
    fn enroller(&self) -> Enroller<'_> {
        match self {
            Self::Person(person) => Enroller::Person(person),
            Self::Challenge(token) => Enroller::Challenge(token),
        }
    }
}

impl Visit<'_> {
    /// Returns whose factors the page is about: of who is signed in, or of who is about to be and must have one.
    async fn owner(&mut self) -> Result<Owner, Failure> {
        if let Some(token) = self.challenge()
            && let Ok(asked) = self.pages.accounts.pending_challenge(&token, None, self.client.address).await
            && asked.purpose == ChallengePurpose::Enrolment
        {
            return Ok(Owner::Challenge(token));
        }
        self.person().map(Owner::Person)
    }

    fn factors_form(&mut self, owner: &Owner, return_to: Option<String>) -> Form {
        match owner {
            Owner::Person(person) => self.form_to(person, return_to),
            Owner::Challenge(_) => self.visitor_form(return_to),
        }
    }

    async fn factors_page(&mut self, owner: &Owner, return_to: Option<String>) -> Result<Factors, Failure> {
        let form = self.factors_form(owner, return_to);
        let accounts = &self.pages.accounts;
        let (factors, recovery_codes) = match owner {
            Owner::Person(person) => accounts.list_factors(person).await?,
            Owner::Challenge(_) => (Vec::new(), 0),
        };
        let entry = |factor: crate::store::Factor| FactorEntry {
            id: factor.id.to_string(),
            kind: factor.kind.name(),
            name: factor.name,
            created_on: minute(factor.created_at),
            used_on: factor.last_used_at.map(minute),
        };
        Ok(Factors {
            form,
            factors: factors.into_iter().map(entry).collect(),
            recovery_codes,
            takes_passkeys: accounts.takes_passkeys(),
            is_enrolment: matches!(owner, Owner::Challenge(_)),
            ..Factors::default()
        })
    }

    pub(super) async fn show_factors(&mut self) -> PageResult {
        let owner = self.owner().await?;
        let return_to = self.destination(&self.query("return_to"));
        let id = self.query("id");
        if !id.is_empty() {
            return self.show_pending_factor(&owner, &id, return_to, None).await;
        }
        // Who comes for one is not to lose their way for an old proof.
        if let (Owner::Person(person), Some(_)) = (&owner, &return_to) {
            self.pages.accounts.may_change(person).await.map_err(Failure::from)?;
        }
        let notice = self.notice();
        let page = self.factors_page(&owner, return_to).await?;
        self.show(StatusCode::OK, &Factors { notice, ..page })
    }

    /// Shows what a factor that was begun is confirmed with.
    async fn show_pending_factor(
        &mut self,
        owner: &Owner,
        id: &str,
        return_to: Option<String>,
        failed: Option<(StatusCode, Message)>,
    ) -> PageResult {
        let accounts = self.pages.accounts.clone();
        let begun = accounts.pending_factor(owner.enroller(), id, self.client.address).await;
        let begun = begun.map_err(Failure::from)?;
        let form = self.factors_form(owner, return_to);
        let page = NewFactor { form, id: begun.id.to_string(), ..NewFactor::default() };
        let page = match begun.with {
            FactorSetup::Totp(secret, uri) => NewFactor {
                secret: Some(in_groups(secret.expose())),
                picture: qr_code(&uri).map(|svg| data_address(&svg)),
                uri: Some(uri),
                ..page
            },
            FactorSetup::Passkey(options) => {
                NewFactor { options: Some(options.to_string()), is_begun: failed.is_none(), ..page }
            }
        };
        let (status, wrong) = match failed {
            Some((status, message)) => (status, Wrong::of(message)),
            None => (StatusCode::OK, Wrong::default()),
        };
        self.show(status, &NewFactor { wrong, ..page })
    }

    pub(super) async fn factors(&mut self) -> PageResult {
        let owner = self.owner().await?;
        let sent = match &owner {
            Owner::Person(person) => self.sent_by(person)?,
            Owner::Challenge(_) => self.sent_by_visitor()?,
        };
        let return_to = self.destination(&sent.text("return_to"));
        let query = return_to.as_deref().map(query_of).unwrap_or_else(|| "?".to_owned());
        let factors = format!("{}/account/factors{query}", self.pages.loaded.ui);
        let (accounts, address) = (self.pages.accounts.clone(), self.client.address);
        let kind = match (sent.text("begin").as_str(), &owner) {
            ("totp", _) => FactorKind::Totp,
            ("passkey", _) => FactorKind::Passkey,
            ("recovery", Owner::Person(person)) => {
                let codes = accounts.renew_recovery_codes(person, address).await.map_err(Failure::from)?;
                return self.show_codes(codes, return_to);
            }
            _ if sent.is_set("remove") => {
                let Owner::Person(person) = &owner else { return Err(Kind::NotFound.into()) };
                accounts.remove_factor(person, &sent.text("id"), address).await.map_err(Failure::from)?;
                return Ok(see_other(&format!("{factors}&done=removed")));
            }
            _ => return self.confirm(&owner, &sent, return_to, &factors).await,
        };
        let name = sent.text("name");
        match accounts.begin_factor(owner.enroller(), kind, Some(&name), address).await {
            Ok(begun) => Ok(see_other(&format!("{factors}&id={}", begun.id))),
            Err(error @ (AccountError::Unproved(_) | AccountError::Refused(Kind::Unauthenticated))) => {
                Err(error.into())
            }
            Err(error) => {
                let message = match error.kind() {
                    Kind::FactorNotAccepted => Message::about("name", "error-factor"),
                    _ => Message::of(&error, "name"),
                };
                let status = self.status_of(&error);
                let page = self.factors_page(&owner, return_to).await?;
                self.show(status, &Factors { wrong: Wrong::of(message), ..page })
            }
        }
    }

    async fn confirm(
        &mut self,
        owner: &Owner,
        sent: &Sent,
        return_to: Option<String>,
        factors: &str,
    ) -> PageResult {
        let id = sent.text("id");
        let made = sent.secret("credential").and_then(|made| serde_json::from_str(made.expose()).ok());
        let proof = match (sent.secret("code"), made) {
            (_, Some(made)) => FactorProof::Passkey(made),
            (Some(code), None) => FactorProof::Code(code),
            (None, None) => {
                let missing = (StatusCode::BAD_REQUEST, Message::about("code", "error-missing"));
                return self.show_pending_factor(owner, &id, return_to, Some(missing)).await;
            }
        };
        let accounts = self.pages.accounts.clone();
        match accounts.confirm_factor(owner.enroller(), &id, proof, self.client).await {
            Ok(FactorConfirmed { recovery_codes, session }) => {
                if let Issued::Browser(session) = session {
                    self.welcome(*session);
                }
                match recovery_codes {
                    Some(codes) => self.show_codes(codes, return_to),
                    None => Ok(see_other(&return_to.unwrap_or_else(|| format!("{factors}&done=factor")))),
                }
            }
            Err(
                error @ (AccountError::Unproved(_)
                | AccountError::Refused(Kind::Unauthenticated | Kind::NotFound)),
            ) => Err(error.into()),
            Err(error) => {
                let message = match error.kind() {
                    Kind::FactorNotAccepted => Message::about("code", "error-factor"),
                    _ => message(&error),
                };
                let failed = (self.status_of(&error), message);
                self.show_pending_factor(owner, &id, return_to, Some(failed)).await
            }
        }
    }

    /// Shows recovery codes, once.
    fn show_codes(&self, codes: Vec<String>, return_to: Option<String>) -> PageResult {
        let continue_to = return_to.unwrap_or_else(|| format!("{}/account/factors", self.pages.loaded.ui));
        self.show(StatusCode::OK, &RecoveryCodes { codes, continue_to })
    }
}

fn in_groups(secret: &str) -> String {
    let characters: Vec<char> = secret.chars().collect();
    let groups: Vec<String> = characters.chunks(GROUP).map(|group| group.iter().collect()).collect();
    groups.join(" ")
}

/// Returns the address of a picture that is all in the address (RFC 2397).
fn data_address(svg: &str) -> String {
    let mut address = "data:image/svg+xml,".to_owned();
    for character in svg.chars() {
        match character {
            '<' => address.push_str("%3C"),
            '>' => address.push_str("%3E"),
            '#' => address.push_str("%23"),
            ' ' => address.push_str("%20"),
            other => address.push(other),
        }
    }
    address
}
