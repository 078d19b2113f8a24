//! Registering.

use super::{AccountError, Accounts, Client, Holder, Result, Tokens, challenge::NewChallenge};
use crate::{
    config,
    error::Kind,
    mail::is_address,
    password::Rules,
    store::{ChallengePurpose, Event, Grant, NewUser, Opened, Purpose},
    token::RefreshToken,
    types::{Proofs, Roles, Secret, SessionId, UserId, Username},
};

/// The longest address that mail servers take (RFC 5321, section 4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;

/// A request to register.
#[derive(Debug)]
pub struct Registration {
    /// The name as typed.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// The password again.
    pub password_confirm: Option<Secret>,
    /// An e-mail address.
    pub email: Option<String>,
    /// Roles, in place of the default ones.
    pub roles: Option<Vec<String>>,
    /// The token of an invitation.
    pub invitation: Option<Secret>,
}

impl Accounts {
    /// Makes an account and its first session.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn register(&self, wanted: Registration, client: Client<'_>) -> Result<Tokens> {
        let (grant, refresh) = self.admit(wanted, Holder::Tokens, client).await?;
        let tokens = self.issue(grant, refresh).await?;
        let device = self.device_tokens.new_device(tokens.user.id);
        let device = self.device_token(device, tokens.user.generation);
        Ok(Tokens { device: Some(device), ..tokens })
    }

    /// Makes an account, and opens its first session.
    pub(super) async fn admit(
        &self,
        wanted: Registration,
        holder: Holder,
        client: Client<'_>,
    ) -> Result<(Grant, RefreshToken)> {
        if self.config.registration == config::Registration::Closed && wanted.invitation.is_none() {
            return Err(AccountError::Refused(Kind::RegistrationClosed));
        }
        let confirmed = wanted.password_confirm.as_ref().map(Secret::expose);
        if confirmed.is_some_and(|confirmed| confirmed != wanted.password.expose()) {
            return Err(AccountError::Refused(Kind::PasswordsDoNotMatch));
        }
        let used = self.attempts.registration(client.address).await?;
        let result = self.try_register(wanted, holder, client).await;
        if matches!(&result, Err(error) if error.is_ours()) {
            self.attempts.unused(used).await;
        }
        result
    }

    async fn try_register(
        &self,
        wanted: Registration,
        holder: Holder,
        client: Client<'_>,
    ) -> Result<(Grant, RefreshToken)> {
        let address = client.address;
        let name = Username::new(&wanted.username)?;
        self.config.username.check(&name)?;
        let password = Rules::prepare(&wanted.password)?;
        self.rules().check(&password, name.as_str())?;
        let mut roles = match wanted.roles {
            Some(wanted) => self.assignable(&wanted)?,
            None => self.config.default_roles.clone(),
        };
        let invitation = match &wanted.invitation {
            Some(token) => Some(self.invitation(token.expose()).await?),
            None => None,
        };
        if let Some((_, invitation)) = &invitation {
            roles = roles.iter().chain(invitation.roles.iter()).cloned().collect();
        }
        let invitation = invitation.map(|(hash, _)| hash);
        let email = wanted.email.map(|email| check_email(&email)).transpose()?;
        // A taken name costs no hash. The response tells that it is taken anyway.
        if self.store.user_by_name(&name).await?.is_some() {
            return Err(AccountError::Refused(Kind::UsernameExists));
        }
        let password_hash = self.hash_new(password, &name, address).await?;
        self.await_key().await?;
        let id = UserId::generate(self.time.now().time, &*self.random);
        let mail = match &email {
            Some(_) => self.mail(id, Purpose::VerifyEmail, None).await?,
            None => None,
        };
        let event = Some(Event::own(id, address, "user.register", String::new()));
        let user = NewUser {
            email,
            password_hash: Some(password_hash),
            invitation,
            mail,
            event,
            ..NewUser::new(id, name, roles)
        };
        let (session, refresh) = self.new_session(SessionId::generate(&*self.random), client.place(), holder);
        let requires_factor = self.role_requires_factor(&user.roles);
        let opened = self.store.create_user(&user, Some(&session).filter(|_| !requires_factor)).await?;
        match opened {
            Some(Opened { grant: Some(grant), .. }) => {
                self.mails_are_queued();
                Ok((grant, refresh))
            }
            // The account is there; there is no session before it has a factor.
            Some(Opened { user, grant: None }) => {
                self.mails_are_queued();
                let (purpose, proofs) = (ChallengePurpose::Enrolment, Proofs::PASSWORD);
                let new = NewChallenge { purpose, session: None, proofs, holder, link: None };
                let challenge = self.create_challenge(&user, new).await?;
                Err(AccountError::FactorNeeded(Box::new(challenge)))
            }
            None => {
                if let Some(token) = &wanted.invitation {
                    // Somebody may have used it up meanwhile.
                    self.invitation(token.expose()).await?;
                }
                Err(AccountError::Refused(Kind::UsernameExists))
            }
        }
    }

    fn assignable(&self, wanted: &[String]) -> Result<Roles> {
        let roles = Roles::parse_all(wanted).map_err(|_| AccountError::Refused(Kind::InsufficientRole))?;
        let allowed = roles.iter().all(|role| self.config.self_assignable_roles.contains(role.as_str()));
        if allowed { Ok(roles) } else { Err(AccountError::Refused(Kind::InsufficientRole)) }
    }
}

/// Checks that a text can be an e-mail address.
///
/// # Errors
/// When it cannot.
pub(super) fn check_email(email: &str) -> Result<String> {
    // Only a mail can tell whether an address exists. This rejects texts that none can be written to.
    // No list, no name beside it, no comment.
    let plain = !email.contains([',', ';', '<', '>', '(', ')', '"', '\\'])
        && !email.chars().any(|c| c.is_control() || c.is_whitespace());
    if plain && email.len() <= MAX_EMAIL_BYTES && is_address(email) {
        Ok(email.to_owned())
    } else {
        Err(AccountError::Refused(Kind::EmailNotAccepted))
    }
}
