//! The verification of responses to challenges. Nothing is spent here.

use std::net::IpAddr;

use uuid::Uuid;

use super::{Accounts, ChallengeResponse, Method, Result};
use crate::{
    factor::normalized,
    store::{AuthChallenge, ChallengePurpose, Factor, FactorKind, FactorUse, User},
    types::Secret,
};

impl Accounts {
    /// Returns the use of a factor that a response proves, or `None` if it is wrong.
    pub(super) async fn verify_response(
        &self,
        challenge: &AuthChallenge,
        user: &User,
        found: Option<Factor>,
        response: &ChallengeResponse,
        address: IpAddr,
    ) -> Result<Option<FactorUse>> {
        if challenge.purpose == ChallengePurpose::Enrolment {
            return Ok(None);
        }
        if let Some(factor) = found {
            // A passkey alone has to verify its user.
            let shown = self.verify_passkey(challenge, user, &[factor], response);
            // The response has to name the user (Web Authentication, section 7.2).
            let tells = response.credential.as_ref().and_then(|shown| shown.user_handle().ok().flatten());
            let is_verified = |by: &FactorUse| matches!(by, FactorUse::Passkey { verified: true, .. });
            return Ok(shown.filter(|by| tells.is_some() && is_verified(by)));
        }
        let factors = self.store.factors(user.id).await?;
        if !self.methods(user, &factors, challenge.proofs).await?.contains(&response.method) {
            return Ok(None);
        }
        let code = response.code.as_ref().map(Secret::expose).unwrap_or_default();
        Ok(match response.method {
            Method::Totp => self.verify_totp(user, &factors, code),
            Method::Passkey => self.verify_passkey(challenge, user, &factors, response),
            Method::Recovery => normalized(code)
                .map(|code| FactorUse::Recovery(self.factors.keys.recovery_hash(user.id, &code))),
            Method::Email => self.verify_mail_code(challenge.code_mail, code),
            Method::Password => match &response.code {
                Some(password) => {
                    self.is_password(user, password, address).await?.then_some(FactorUse::Password)
                }
                None => None,
            },
        })
    }

    fn verify_totp(&self, user: &User, factors: &[Factor], code: &str) -> Option<FactorUse> {
        let now = self.time.database_time();
        let mut apps = factors.iter().filter(|factor| factor.is_confirmed && factor.kind == FactorKind::Totp);
        apps.find_map(|factor| {
            let step = self.totp(user, factor.id)?.step(code, now)?;
            Some(FactorUse::Totp(factor.id, step))
        })
    }

    fn verify_passkey(
        &self,
        challenge: &AuthChallenge,
        user: &User,
        factors: &[Factor],
        response: &ChallengeResponse,
    ) -> Option<FactorUse> {
        let (party, shown) = (self.factors.relying_party.as_ref()?, response.credential.as_ref()?);
        let credential = shown.credential().ok()?;
        let known = |factor: &&Factor| factor.is_confirmed && factor.credential.as_ref() == Some(&credential);
        let factor = factors.iter().find(known)?;
        let handle = shown.user_handle().ok()?;
        if handle.is_some_and(|handle| handle != user.id.uuid().as_bytes()) {
            return None;
        }
        let question = self.factors.keys.assertion_challenge(&challenge.token_hash);
        match party.authenticate(&question, factor.public_key.as_deref()?, shown) {
            Ok(asserted) => {
                let counter = i64::from(asserted.counter);
                if counter != 0 && counter <= factor.counter {
                    tracing::warn!(user.id = %user.id, factor.id = %factor.id, "a passkey counts backwards: it may have been copied");
                }
                Some(FactorUse::Passkey { id: factor.id, counter, verified: asserted.is_verified })
            }
            Err(error) => {
                tracing::debug!(user.id = %user.id, %error, "a passkey is not accepted");
                None
            }
        }
    }

    fn verify_mail_code(&self, mail: Option<Uuid>, code: &str) -> Option<FactorUse> {
        let mail = mail?;
        let expected = self.factors.keys.mail_code(mail);
        let code: String = code.chars().filter(|character| !character.is_whitespace()).collect();
        let is_same =
            aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), code.as_bytes()).is_ok();
        is_same.then_some(FactorUse::Mail(mail))
    }
}
