//! One order: from the account to the certificate.

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use thiserror::Error as ThisError;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::{certificates::IssuedCertificates, client::Client, schedule::Window};
use crate::{
    config::{self, ChallengeKind},
    store::{self, BegunOrder, OrderLease, Store, StoreError},
    tls::{Issued, TlsError},
    token::{MasterError, MasterKeys, Wrapped},
};

/// How long it takes until all gateways know of a proof that is pending: twice the time between two looks at the store, and a little.
const SPREAD: Duration = Duration::from_secs(5);

/// How often an authority is asked whether it has made up its mind, and for how long.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(60));

/// The account is not known (RFC 8555, section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The most attempts at one order.
const MOST_ATTEMPTS: u32 = 3;

/// Problems of an authority that are no finding (RFC 8555, section 6.7).
const PASSING: [&str; 2] =
    ["urn:ietf:params:acme:error:badNonce", "urn:ietf:params:acme:error:serverInternal"];

/// Why an order came to nothing, or has to go on later.
#[derive(Debug, ThisError)]
pub(super) enum OrderError {
    /// The authority could not be asked, or has refused.
    #[error("{0}")]
    Authority(#[from] Error),
    /// The authority found that the name is not served here, or does not say why.
    #[error("the authority could not make sure that the name is served here: {0}")]
    Invalid(String),
    /// The authority offers no way that is configured.
    #[error("the authority offers none of acme.challenges")]
    NoChallenge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another gateway has the lease by now.
    #[error("another gateway has taken the order over")]
    Lost,
    /// A key could not be wrapped or unwrapped.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// A key or a request for a certificate could not be made.
    #[error("{0}")]
    Request(#[from] rcgen::Error),
    /// The account in the store is none.
    #[error("the account in the store: {0}")]
    Account(#[from] serde_json::Error),
    /// What was issued cannot be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// What an authority responded with was not foreseen.
    #[error("the order has panicked")]
    Panicked,
    /// What was issued is for another name, or over.
    #[error("the authority has issued a certificate that is not for the name, or has expired")]
    WrongCertificate,
}

impl OrderError {
    /// Returns whether the way to the authority or to the store is to blame: the authority has counted no failure.
    pub(super) fn is_on_the_way(&self) -> bool {
        match self {
            Self::Authority(Error::Api(problem)) => {
                problem.r#type.as_deref().is_some_and(|kind| PASSING.contains(&kind))
            }
            Self::Authority(_) => true,
            Self::Store(_) | Self::Lost => true,
            _ => false,
        }
    }

    /// Returns whether the order may go on at the next attempt, after so many failures in a row.
    pub(super) fn keeps_order(&self, failures: u32) -> bool {
        self.is_on_the_way() && failures < MOST_ATTEMPTS
    }

    /// Returns whether the authority does not know the account any more.
    fn is_of_the_account(&self) -> bool {
        matches!(self, Self::Authority(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT))
    }
}

/// What was obtained: the chain in PEM, and the wrapped private key.
pub(super) struct Obtained {
    pub(super) chain: String,
    pub(super) wrapped_key: Vec<u8>,
    pub(super) issued: Issued,
}

/// Obtains certificates.
pub(super) struct Orders {
    pub(super) store: Arc<dyn Store>,
    pub(super) masters: Arc<MasterKeys>,
    pub(super) certificates: Arc<IssuedCertificates>,
    pub(super) config: config::Acme,
    pub(super) client: Client,
}

impl Orders {
    /// Returns the account at the authority, which is made if there is none.
    ///
    /// # Errors
    /// [`OrderError`].
    pub(super) async fn account(&self) -> Result<Account, OrderError> {
        match self.store.acme_account(&self.config.directory_text).await? {
            Some(wrapped) => self.restore(&wrapped).await,
            None => self.make_account(None).await,
        }
    }

    /// Obtains a certificate as [`Self::obtain`] does; by a new account if the authority does not know the one that there is.
    ///
    /// # Errors
    /// [`OrderError`].
    pub(super) async fn obtain_by_any_account(
        &self,
        account: &Account,
        lease: &OrderLease,
        current: Option<&Issued>,
        now: u64,
    ) -> Result<Obtained, OrderError> {
        match self.obtain(account, lease, current, now).await {
            Err(error) if error.is_of_the_account() => {
                tracing::warn!(%error, "the certificate authority does not know the account; another one is made");
                let before = self.store.acme_account(&self.config.directory_text).await?;
                let account = self.make_account(before.as_deref()).await?;
                let lease = OrderLease { begun: None, ..lease.clone() };
                self.obtain(&account, &lease, None, now).await
            }
            result => result,
        }
    }

    async fn restore(&self, wrapped: &[u8]) -> Result<Account, OrderError> {
        let what = Wrapped::acme_account(&self.config.directory_text);
        let credentials = self.masters.unwrap(what, wrapped)?;
        let credentials: AccountCredentials = serde_json::from_slice(&credentials)?;
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        Ok(builder.from_credentials(credentials).await?)
    }

    /// Makes an account, in place of the one that it `replaces`.
    async fn make_account(&self, replaces: Option<&[u8]>) -> Result<Account, OrderError> {
        let directory = &self.config.directory_text;
        let contact = self.config.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let wanted =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let (account, credentials) = builder.create(&wanted, directory.clone(), None).await?;
        let credentials = Zeroizing::new(serde_json::to_vec(&credentials)?);
        let wrapped = self.masters.wanted().wrap(Wrapped::acme_account(directory), &credentials)?;
        let stored = self.store.add_acme_account(directory, &wrapped, replaces).await?;
        // Another gateway may have been faster.
        if stored == wrapped { Ok(account) } else { self.restore(&stored).await }
    }

    /// Returns when the authority wants a certificate to be renewed; none if it does not say.
    pub(super) async fn window(&self, account: &Account, issued: &Issued) -> Option<Window> {
        let (info, _) = account.renewal_info(&identifier(issued)?).await.ok()?;
        let millis = |at: time::OffsetDateTime| {
            i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
        };
        let window = info.suggested_window;
        Some(Window { start: millis(window.start), end: millis(window.end) })
    }

    /// Obtains a certificate for the name of a lease; `current` is the one that there is.
    ///
    /// # Errors
    /// [`OrderError`].
    async fn obtain(
        &self,
        account: &Account,
        lease: &OrderLease,
        current: Option<&Issued>,
        now: u64,
    ) -> Result<Obtained, OrderError> {
        let (mut order, key) = self.begin(account, lease, current).await?;
        if order.state().status == OrderStatus::Pending {
            self.prove(&mut order, lease).await?;
            if order.poll_ready(&POLLS).await? != OrderStatus::Ready {
                return Err(OrderError::Invalid(reason(&mut order).await));
            }
        }
        if order.state().status == OrderStatus::Ready {
            let mut params = CertificateParams::new(vec![lease.name.clone()])?;
            params.distinguished_name = DistinguishedName::new();
            order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        }
        let chain = order.poll_certificate(&POLLS).await?;
        let der = Zeroizing::new(key.serialize_der());
        let issued = Issued::parse(&chain, &der)?;
        if !issued.names().cover(&lease.name) || issued.validity().1 <= now {
            return Err(OrderError::WrongCertificate);
        }
        let wrapped_key = self.masters.wanted().wrap(Wrapped::certificate_key(&lease.name), &der)?;
        Ok(Obtained { chain, wrapped_key, issued })
    }

    /// Returns the order that was begun before, if it may go on, or begins one; and its private key.
    async fn begin(
        &self,
        account: &Account,
        lease: &OrderLease,
        current: Option<&Issued>,
    ) -> Result<(Order, KeyPair), OrderError> {
        let what = Wrapped::order_key(&lease.name);
        let directory = &self.config.directory_text;
        if let Some(begun) = lease.begun.as_ref().filter(|begun| begun.directory == *directory) {
            let key = self.masters.unwrap(what, &begun.wrapped_key)?;
            match account.order(begun.url.clone()).await {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        return Ok((order, KeyPair::try_from(&key[..])?));
                    }
                }
                Err(error) => {
                    let error = OrderError::from(error);
                    if error.is_on_the_way() || error.is_of_the_account() {
                        return Err(error);
                    }
                    // The authority does not know it any more.
                }
            }
        }
        let names = [Identifier::Dns(lease.name.clone())];
        let replaced = current.and_then(identifier);
        let order = match replaced {
            Some(replaced) => match account.new_order(&NewOrder::new(&names).replaces(replaced)).await {
                Ok(order) => order,
                // The authority has no such certificate, or does not take that into account.
                Err(Error::Api(_) | Error::Unsupported(_) | Error::Other(_)) => {
                    account.new_order(&NewOrder::new(&names)).await?
                }
                Err(error) => return Err(error.into()),
            },
            None => account.new_order(&NewOrder::new(&names)).await?,
        };
        let key = KeyPair::generate()?;
        let wrapped = self.masters.wanted().wrap(what, &Zeroizing::new(key.serialize_der()))?;
        let begun =
            BegunOrder { url: order.url().to_owned(), wrapped_key: wrapped, directory: directory.clone() };
        let is_mine = self.store.order_begun(lease, &begun).await?;
        is_mine.then_some((order, key)).ok_or(OrderError::Lost)
    }

    /// Lets the authority make sure that the name is served here.
    async fn prove(&self, order: &mut Order, lease: &OrderLease) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            // An authority may know from an earlier order.
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let offered: Vec<ChallengeType> =
                authorization.challenges.iter().map(|challenge| challenge.r#type.clone()).collect();
            let kind = self.chosen(&offered, lease.failures).ok_or(OrderError::NoChallenge)?;
            let mut challenge = authorization.challenge(kind).ok_or(OrderError::NoChallenge)?;
            let pending = store::Challenge {
                name: lease.name.clone(),
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
            };
            if !self.store.add_challenge(lease, &pending).await? {
                return Err(OrderError::Lost);
            }
            self.certificates.read_challenges().await?;
            // Also where one gateway is all there is: during an upgrade there are two.
            sleep(SPREAD).await;
            challenge.set_ready().await?;
        }
        Ok(())
    }

    /// Returns the kind of challenge to take, another one after a failure.
    fn chosen(&self, offered: &[ChallengeType], failures: u32) -> Option<ChallengeType> {
        let wanted = self.config.challenges.iter().map(|kind| match kind {
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
            ChallengeKind::Http01 => ChallengeType::Http01,
        });
        let possible: Vec<ChallengeType> = wanted.filter(|kind| offered.contains(kind)).collect();
        let index = (failures as usize).checked_rem(possible.len())?;
        possible.into_iter().nth(index)
    }
}

/// Returns what an authority has found wrong.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { break };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(detail) = errors.filter_map(|error| error.detail.clone()).next() {
            return detail.chars().filter(|character| !character.is_control()).take(500).collect();
        }
    }
    "it does not say why".to_owned()
}

/// Returns how an authority knows a certificate (RFC 9773, section 4.1).
fn identifier(issued: &Issued) -> Option<CertificateIdentifier<'static>> {
    let (authority, serial) = issued.identifier()?;
    Some(CertificateIdentifier::new(authority.into(), serial.into()).into_owned())
}
