//! Verifying addresses and resetting passwords by mail.
//!
//! A request queues a mail and is answered; sending is the [`MailWorker`]'s business, whatever the mail
//! server does. The queue is in the store: a mail outlives a restart, and of several gateways one
//! sends it.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    AccountError, Accounts, Actor, Result, challenge::HOLDS_FOR, change::ANOTHER_PASSWORD,
    register::check_email,
};
use crate::{
    clock::millis,
    config,
    error::Kind,
    mail::{Letter, MailSetupError, Mailer, SendError, Template},
    password::Rules,
    store::{
        AccountChange, Change, ClaimedMail, Ends, Event, MailLease, MailTtls, NewMail, Purpose, Sent, Spend,
        Store,
    },
    token::{FactorKeys, MailTokens, OpaqueToken, SignedIn},
    types::{Secret, UserId, Username},
};

/// Mails of one purpose to one account whose tokens still hold: who gets no other has one that works.
const MOST_LIVE: u32 = 3;

/// The greatest number to one address for all accounts, so that registrations cannot fill a mailbox.
const MOST_LIVE_TO_ADDRESS: u32 = 10;

/// When a request for a reset is answered: later than looking an address up and queueing take, so that
/// it does not tell whether there was anything to queue.
const ANSWERED_AFTER: Duration = Duration::from_millis(250);

/// Where mails are queued.
pub struct MailQueue {
    tokens: Arc<MailTokens>,
    wake: Arc<Notify>,
    per_hour: config::MailsPerHour,
}

fn label(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::VerifyEmail => "verify email",
        Purpose::ResetPassword => "reset password",
        Purpose::PasswordChanged => "password changed",
        Purpose::AddressChanged => "address changed",
        Purpose::LoginCode => "login code",
        Purpose::FactorsChanged => "factors changed",
        Purpose::ResetLink => "reset link",
        Purpose::KeyAdded => "key added",
    }
}

impl Accounts {
    fn queue(&self) -> Result<&MailQueue> {
        self.mail.as_ref().ok_or(AccountError::Refused(Kind::EmailNotConfigured))
    }

    /// A mail to be queued; none where there is no mail server, or where the account or all together had their fill for
    /// this hour.
    pub(super) async fn mail(
        &self,
        user: UserId,
        purpose: Purpose,
        recipient: Option<String>,
    ) -> Result<Option<NewMail>> {
        let Some(queue) = &self.mail else { return Ok(None) };
        if let Err(error) = self.attempts.queued_mail(user, purpose.is_notice(), queue.per_hour).await {
            tracing::warn!(%user, purpose = label(purpose), %error, "mail not queued");
            return if error.is_ours() { Err(error) } else { Ok(None) };
        }
        let id = uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid();
        let token_hash = queue.tokens.token(label(purpose), id).hash;
        let (most_live, most_live_to_address) = (MOST_LIVE, MOST_LIVE_TO_ADDRESS);
        Ok(Some(NewMail { id, user, purpose, recipient, token_hash, most_live, most_live_to_address }))
    }

    /// Wakes the mail worker after mails were queued.
    pub(super) fn mails_are_queued(&self) {
        if let Some(queue) = &self.mail {
            queue.wake.notify_one();
        }
    }

    async fn enqueue(&self, user: UserId, purpose: Purpose) -> Result<bool> {
        self.queue()?;
        let Some(mail) = self.mail(user, purpose, None).await? else { return Ok(false) };
        let queued = self.store.enqueue_mail(&mail).await?;
        self.mails_are_queued();
        Ok(queued)
    }

    /// Queues a mail to the caller's unverified address once more.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn resend_verification(&self, caller: &SignedIn, address: IpAddr) -> Result<()> {
        self.queue()?;
        let _counted = self.attempts.mail(address).await?;
        let me = self.me(caller).await?;
        if me.unverified_email().is_some() {
            self.enqueue(me.id, Purpose::VerifyEmail).await?;
        }
        Ok(())
    }

    /// Queues a mail to whoever has shown this address to be theirs. Known or not, the response and
    /// its time are the same.
    ///
    /// # Errors
    /// [`AccountError`]; never for an unknown address.
    pub async fn forgot_password(self: Arc<Self>, email: &str, address: IpAddr) -> Result<()> {
        self.queue()?;
        let email = check_email(email)?;
        let _counted = self.attempts.mail(address).await?;
        let begun = Instant::now();
        let user = self.store.user_by_verified_email(&email).await?;
        // Work for a known address must neither delay the response nor fail it.
        tokio::spawn(async move {
            if let Some(user) = user.filter(|user| !user.disabled)
                && let Err(error) = self.enqueue(user.id, Purpose::ResetPassword).await
            {
                tracing::error!(user.id = %user.id, %error, "a mail to reset a password could not be queued");
            }
        });
        tokio::time::sleep_until((begun + ANSWERED_AFTER).into()).await;
        Ok(())
    }

    /// Sets a new password with a token from a mail or from a link that an operator made. All sessions end.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn reset_password(&self, token: &str, password: &Secret, address: IpAddr) -> Result<()> {
        let invalid = || AccountError::Refused(Kind::InvalidMailToken);
        let spend = self.reset_by(token)?;
        let user = self.store.mail_owner(spend.purpose, &spend.token_hash).await?.ok_or_else(invalid)?;
        let password = Rules::prepare(password)?;
        self.rules().check(&password, user.name.as_str())?;
        let _counted = self.attempts.change(&user.name, address).await?;
        if user.must_change_password && self.is_password(&user, &password, address).await? {
            return Err(AccountError::Explained(Kind::PasswordNotAccepted, ANOTHER_PASSWORD));
        }
        let password_hash = self.hash_new(password, &user.name, address).await?;
        let by = Actor { id: Some(user.id), name: user.name.to_string(), address: Some(address.to_string()) };
        // The holder of the address is notified, because others may read the same mailbox.
        let verified = user.email.clone().filter(|_| user.email_verified);
        let told = self.mail(user.id, Purpose::PasswordChanged, verified).await?;
        let change = AccountChange {
            mails: told.into_iter().collect(),
            password_hash: Some(password_hash),
            spends: Some(spend),
            event: Some(by.event("user.reset-password", String::new())),
            ..AccountChange::default()
        };
        match self.revoker.change(user.id, user.generation, &change).await? {
            Change::Done(..) => {
                self.mails_are_queued();
                Ok(())
            }
            // The token was used meanwhile.
            _ => Err(invalid()),
        }
    }

    /// Returns the name of the account whose password a token would set, which a password manager needs to keep it; none if there is none.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn reset_for(&self, token: &str, address: IpAddr) -> Result<Option<Username>> {
        let Ok(spend) = self.reset_by(token) else { return Ok(None) };
        let _counted = self.attempts.challenge(address).await?;
        let owner = self.store.mail_owner(spend.purpose, &spend.token_hash).await?;
        Ok(owner.map(|user| user.name))
    }

    /// Returns what a token to set a password is spent as, whose two kinds differ in length.
    fn reset_by(&self, token: &str) -> Result<Spend> {
        if token.len() == OpaqueToken::LENGTH {
            return Ok(Spend { purpose: Purpose::ResetLink, token_hash: OpaqueToken::hash_of(token) });
        }
        let purpose = Purpose::ResetPassword;
        let token_hash = self.queue()?.tokens.read(label(purpose), token);
        let token_hash = token_hash.ok_or(AccountError::Refused(Kind::InvalidMailToken))?;
        Ok(Spend { purpose, token_hash })
    }

    /// Takes a token from a mail as proof that its address is the account's.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn verify_email(&self, token: &str, address: IpAddr) -> Result<()> {
        let invalid = || AccountError::Refused(Kind::InvalidMailToken);
        let token = self.queue()?.tokens.read(label(Purpose::VerifyEmail), token).ok_or_else(invalid)?;
        let purpose = Purpose::VerifyEmail;
        let owner = self.store.mail_owner(purpose, &token).await?.ok_or_else(invalid)?;
        let change = AccountChange {
            spends: Some(Spend { purpose, token_hash: token }),
            ends: Ends::Nothing,
            event: Some(Event::own(owner.id, address, "user.verify-email", String::new())),
            ..AccountChange::default()
        };
        match self.store.change_user(owner.id, &change).await? {
            Change::Done(..) => {
                self.revoker.keys_follow(owner.id, &change, owner.generation).await;
                Ok(())
            }
            // The token was used meanwhile, or another account has verified the address.
            _ => Err(invalid()),
        }
    }
}

/// How long the queue is left alone when nothing woke the mail worker: other gateways queue, too.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The waits between attempts: doubled each time, between these.
const FIRST_RETRY: i64 = 2_000;
const LAST_RETRY: i64 = 600_000;

/// How long after the second time a refusal for good is asked for once more.
const LAST_WORD: i64 = 3_600_000;

/// Sends queued mails.
pub struct MailWorker {
    store: Arc<dyn Store>,
    tokens: Arc<MailTokens>,
    wake: Arc<Notify>,
    mailer: Mailer,
    verify: Template,
    reset: Template,
    password_changed: Template,
    address_changed: Template,
    login_code: Template,
    factors_changed: Template,
    key_added: Template,
    factor_keys: FactorKeys,
    config: config::Email,
    stopped: AtomicBool,
}

impl MailWorker {
    /// A mail worker, and the queue that he is woken from.
    ///
    /// # Errors
    /// When the config cannot be used.
    pub fn new(
        config: &config::Email,
        store: Arc<dyn Store>,
        tokens: MailTokens,
        factor_keys: FactorKeys,
    ) -> std::result::Result<(Self, MailQueue), MailSetupError> {
        let (tokens, wake) = (Arc::new(tokens), Arc::new(Notify::new()));
        let queue = MailQueue { tokens: tokens.clone(), wake: wake.clone(), per_hour: config.per_hour };
        let folder = config.templates.as_deref();
        let mail_worker = Self {
            store,
            tokens,
            wake,
            mailer: Mailer::new(config)?,
            verify: Template::verify_email(folder)?,
            reset: Template::reset_password(folder)?,
            password_changed: Template::password_changed(folder)?,
            address_changed: Template::address_changed(folder)?,
            login_code: Template::login_code(folder)?,
            factors_changed: Template::factors_changed(folder)?,
            key_added: Template::key_added(folder)?,
            factor_keys,
            config: config.clone(),
            stopped: AtomicBool::new(false),
        };
        Ok((mail_worker, queue))
    }

    /// Whether a config can be used.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(config: &config::Email) -> std::result::Result<(), MailSetupError> {
        let folder = config.templates.as_deref();
        Template::verify_email(folder)?;
        Template::reset_password(folder)?;
        Template::password_changed(folder)?;
        Template::address_changed(folder)?;
        Template::login_code(folder)?;
        Template::factors_changed(folder)?;
        Template::key_added(folder)?;
        Mailer::new(config).map(drop)
    }

    /// Lets what is being sent be the last.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.wake.notify_waiters();
    }

    /// Sends until it is stopped.
    pub async fn work(self: Arc<Self>) {
        while !self.stopped.load(Relaxed) {
            match self.deliver_next().await {
                Ok(true) => {}
                Ok(false) => drop(tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await),
                Err(error) => {
                    tracing::debug!(%error, "the queue of mails cannot be read");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Whether there was one to send.
    async fn deliver_next(&self) -> crate::store::Result<bool> {
        let lease = MailLease {
            // No other gateway tries it before this one has given up for certain.
            hold: millis(self.config.smtp.timeout + Duration::from_secs(10)),
            ttls: MailTtls {
                verify: millis(self.config.verify_ttl),
                reset: millis(self.config.reset_ttl),
                code: millis(HOLDS_FOR),
            },
        };
        let Some(mail) = self.store.claim_mail(&lease).await? else { return Ok(false) };
        let too_old = mail.age > millis(self.config.retry_for);
        let sent = match self.send(&mail, too_old).await {
            // The address or the password is another by now: the link would open nothing.
            Ok(false) => Sent::Done,
            Ok(true) => {
                tracing::info!(user.id = %mail.user.id, purpose = label(mail.purpose), "mail sent");
                Sent::Done
            }
            Err(error @ SendError::Illegal(_)) => {
                tracing::error!(user.id = %mail.user.id, purpose = label(mail.purpose), %error, "mail given up");
                Sent::GivenUp
            }
            Err(reason) if too_old => {
                tracing::error!(user.id = %mail.user.id, purpose = label(mail.purpose), %reason, "mail given up");
                Sent::GivenUp
            }
            // The server says that it never will: mistaken once, perhaps, and again after an hour.
            Err(reason @ SendError::Refused(_)) => {
                tracing::warn!(user.id = %mail.user.id, attempts = mail.attempts, %reason, "mail not sent");
                match mail.attempts {
                    0..=1 => Sent::Again(FIRST_RETRY),
                    2 => Sent::Again(LAST_WORD),
                    _ => {
                        tracing::error!(user.id = %mail.user.id, purpose = label(mail.purpose), "mail given up");
                        Sent::GivenUp
                    }
                }
            }
            Err(reason) => {
                let wait =
                    FIRST_RETRY.saturating_mul(1 << mail.attempts.saturating_sub(1).min(20)).min(LAST_RETRY);
                tracing::warn!(user.id = %mail.user.id, attempts = mail.attempts, %reason, "mail not sent");
                Sent::Again(wait)
            }
        };
        self.store.mail_sent(mail.id, sent).await?;
        Ok(true)
    }

    /// Whether there was anything to send.
    async fn send(&self, mail: &ClaimedMail, too_old: bool) -> std::result::Result<bool, SendError> {
        if !mail.holds {
            return Ok(false);
        }
        // Only to the address that is stored now, or was stored before the change.
        let to = match mail.purpose {
            Purpose::VerifyEmail => mail.user.unverified_email(),
            Purpose::ResetPassword | Purpose::LoginCode => {
                mail.user.email.as_deref().filter(|_| mail.user.email_verified)
            }
            Purpose::PasswordChanged
            | Purpose::AddressChanged
            | Purpose::FactorsChanged
            | Purpose::KeyAdded => mail.recipient.as_deref(),
            // Who made it has given it away.
            Purpose::ResetLink => None,
        };
        let Some(to) = to else { return Ok(false) };
        if too_old {
            return Err(SendError::NotTaken("it has waited too long".to_owned()));
        }
        let none = ("", Duration::ZERO);
        let (template, (link, lifetime)) = match mail.purpose {
            Purpose::VerifyEmail => (&self.verify, (&*self.config.verify_link, self.config.verify_ttl)),
            Purpose::ResetPassword => (&self.reset, (&*self.config.reset_link, self.config.reset_ttl)),
            Purpose::PasswordChanged => (&self.password_changed, none),
            Purpose::AddressChanged => (&self.address_changed, none),
            Purpose::LoginCode => (&self.login_code, ("", HOLDS_FOR)),
            Purpose::FactorsChanged => (&self.factors_changed, none),
            Purpose::KeyAdded => (&self.key_added, none),
            Purpose::ResetLink => return Ok(false),
        };
        let link = link.replace("{token}", self.token(mail.purpose, mail.id).expose());
        let code = self.factor_keys.mail_code(mail.id);
        let letter = Letter { name: mail.user.name.as_str(), link: &link, code: &code, lifetime };
        self.mailer.send(to, template, &letter).await.map(|()| true)
    }

    fn token(&self, purpose: Purpose, id: Uuid) -> Secret {
        self.tokens.token(label(purpose), id).text
    }
}
