//! From a config to what serves by it.

use std::sync::Arc;

use super::{builtin_calls::BuiltinRunner, foundation::Foundation, load::Parts};
use crate::{
    access::Access,
    account::{Accounts, Attempts, Keys, MailQueue, MailWorker, Operator, Revoker},
    admin::AdminApi,
    auth_api::AuthApi,
    config::{self, Config},
    gateway::{Services, Snapshot},
    mail::MailSetupError,
    password::{Hasher, Rules},
    token::{Issuer, Verifier},
    types::OsRandom,
};

/// The parts that one config gives rise to.
pub(super) struct Assembled {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) admin_api: Arc<AdminApi>,
    /// Sends queued mails, once it is started.
    pub(super) mail_worker: Option<Arc<MailWorker>>,
}

/// What of the foundation a config may come to change.
pub(super) struct Means {
    pub(super) hasher: Arc<Hasher>,
    pub(super) keys: Arc<Keys>,
}

/// Assembles the parts for a config. Starts nothing and changes nothing that runs. A part that is as it was `before`
/// goes on: upstreams with their connections, and the tokens that were verified.
///
/// # Errors
/// When mails could not be sent as the config says.
pub(super) fn assemble(
    foundation: &Foundation,
    means: &Means,
    config: &Config,
    parts: Parts,
    before: Option<&Snapshot>,
) -> Result<Assembled, MailSetupError> {
    let Parts { routes, upstream_tls } = parts;
    let (auth, process) = (&config.auth, &foundation.process);
    let known = before.map(Snapshot::access).filter(|access| access.is_for(&auth.issuer, &auth.audience));
    let access = known.cloned().unwrap_or_else(|| access(foundation, auth));
    let (mail_worker, queue) = match &auth.email {
        Some(email) => {
            let (mail_worker, queue) =
                MailWorker::new(email, foundation.store.clone(), foundation.root.mail_tokens())?;
            (Some(Arc::new(mail_worker)), Some(queue))
        }
        None => (None, None),
    };
    let api = AuthApi::new(
        &auth.path,
        Arc::new(accounts(foundation, means, auth, queue)),
        access.clone(),
        foundation.keyring.clone(),
        config.revocation.max_staleness.as_secs(),
    );
    let builtin_calls =
        BuiltinRunner { api: Arc::new(api), runtime: foundation.calls.clone(), gate: process.gate.clone() };
    let admin_api = AdminApi::new(
        operator(foundation, means, auth),
        access.clone(),
        means.keys.clone(),
        foundation.keyring.clone(),
        auth.default_roles.clone(),
    );
    let services = Services {
        metrics: process.metrics.clone(),
        access_log: process.logs.access.clone(),
        address_counts: process.address_counts.clone(),
        rates: process.rates.clone(),
    };
    let snapshot =
        Snapshot::new(config, routes, access, Arc::new(builtin_calls), services, &upstream_tls, before);
    Ok(Assembled { snapshot: Arc::new(snapshot), admin_api: Arc::new(admin_api), mail_worker })
}

fn access(foundation: &Foundation, auth: &config::Auth) -> Arc<Access> {
    let verifier = Arc::new(Verifier::new(&auth.issuer, &auth.audience, foundation.keyring.clone()));
    let process = &foundation.process;
    let (mirror, time, metrics) = (process.mirror.clone(), process.time.clone(), process.metrics.clone());
    Arc::new(Access::new(verifier, mirror, time, metrics))
}

fn accounts(
    foundation: &Foundation,
    means: &Means,
    auth: &config::Auth,
    mail: Option<MailQueue>,
) -> Accounts {
    let keyring = foundation.keyring.clone();
    let random = foundation.random.clone();
    Accounts {
        config: auth.clone(),
        store: foundation.store.clone(),
        hasher: means.hasher.clone(),
        attempts: Attempts::new(foundation.attempts.clone(), auth.throttle),
        mail,
        issuer: Issuer::new(&auth.issuer, &auth.audience, auth.access_token_ttl, keyring, random.clone()),
        refresh_tokens: foundation.root.refresh_tokens(),
        device_tokens: foundation.root.device_tokens(),
        mirror: foundation.process.mirror.clone(),
        revoker: revoker(foundation, auth),
        time: foundation.process.time.clone(),
        random,
    }
}

fn revoker(foundation: &Foundation, auth: &config::Auth) -> Revoker {
    Revoker {
        store: foundation.store.clone(),
        clock: foundation.process.time.clone(),
        gateway: Some((foundation.process.mirror.clone(), auth.access_token_ttl)),
    }
}

fn operator(foundation: &Foundation, means: &Means, auth: &config::Auth) -> Operator {
    Operator {
        store: foundation.store.clone(),
        hasher: means.hasher.clone(),
        rules: Rules { min_length: auth.password.min_length, reject_common: auth.password.reject_common },
        usernames: auth.username.clone(),
        clock: foundation.process.time.clone(),
        random: Arc::new(OsRandom),
        revoker: revoker(foundation, auth),
    }
}
