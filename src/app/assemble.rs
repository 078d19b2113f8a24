//! From a config to what serves by it.

use std::{sync::Arc, time::Duration};

use super::{builtin_calls::BuiltinRunner, foundation::Foundation, load::Parts};
use crate::{
    access::{Access, BadKeys},
    account::{
        Accounts, Attempts, BreachedService, FactorMeans, Keys, MailQueue, MailWorker, Operator, Revoker,
        SessionReader, WebhookWorker,
    },
    admin::AdminApi,
    auth_api::AuthApi,
    config::Config,
    factor::RelyingParty,
    gateway::{RefusalPages, Services, Snapshot},
    http_client::HttpClient,
    mail::MailSetupError,
    oidc::{Fetcher, Introspector, KeyFollower, ProviderClient},
    otlp::Exporter,
    pages::{PageMeans, Pages},
    password::{Hasher, Rules},
    token::{ExternalIssuer, FreshSessions, Issuer, SessionCookies, Verifier},
    types::OsRandom,
};

/// The parts that one config gives rise to.
pub(super) struct Assembled {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) admin_api: Arc<AdminApi>,
    /// Sends queued mails, once it is started.
    pub(super) mail_worker: Option<Arc<MailWorker>>,
    /// Follow the keys of other issuers that are new, once they are started.
    pub(super) key_followers: Vec<KeyFollower>,
    /// Exports traces, once it is started.
    pub(super) exporter: Option<Exporter>,
    /// Reads claims of accounts, once it is started.
    pub(super) session_reader: Option<SessionReader>,
    /// Tells others of events, once it is started.
    pub(super) webhook_worker: Arc<WebhookWorker>,
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
    let Parts {
        routes,
        upstream_tls,
        fetchers,
        provider_fetchers,
        trace_transport,
        webhook_clients,
        breached_client,
        pages,
    } = parts;
    let (auth, process) = (&config.auth, &foundation.process);
    let routes = Arc::new(routes);
    let before_it = before.map(Snapshot::access);
    let same = before_it.filter(|access| access.is_for(auth, &config.issuers, config.browser.as_ref()));
    let (access, key_followers, session_reader) = match same {
        Some(access) => (access.clone(), Vec::new(), None),
        None => access(foundation, config, fetchers, before_it),
    };
    let cookies = access.cookies().cloned();
    let (mail_worker, queue) = match &auth.email {
        Some(email) => {
            let (mail_worker, queue) = MailWorker::new(
                email,
                foundation.store.clone(),
                foundation.root.mail_tokens(),
                foundation.root.factor_keys(),
            )?;
            (Some(Arc::new(mail_worker)), Some(queue))
        }
        None => (None, None),
    };
    // Nothing fails from here on, so what runs may be changed.
    process.mirror.api_keys().keep_further(!auth.claims.is_empty());
    let accounts = Arc::new(accounts(foundation, means, config, queue, breached_client, cookies));
    let refusal_pages = pages.as_ref().map(|pages| Arc::new(pages.refusals()) as Arc<dyn RefusalPages>);
    let pages = pages.map(|loaded| {
        let providers = config.providers.iter().cloned().zip(provider_fetchers);
        let means = PageMeans {
            form_key: foundation.root.form_key(),
            tickets: foundation.root.tickets(),
            providers: providers.map(|(config, fetcher)| ProviderClient::new(config, fetcher)).collect(),
            random: foundation.random.clone(),
            routes: routes.clone(),
        };
        Arc::new(Pages::new(loaded, &auth.path, accounts.clone(), access.clone(), means))
    });
    let api = AuthApi::new(
        &auth.path,
        accounts,
        access.clone(),
        foundation.keyring.clone(),
        config.revocation.max_staleness.as_secs(),
        routes.clone(),
        config.public_base(),
    );
    let builtin_calls = BuiltinRunner {
        api: Arc::new(api),
        pages,
        runtime: foundation.calls.clone(),
        gate: process.gate.clone(),
    };
    let admin_api = AdminApi::new(
        operator(foundation, means, config),
        access.clone(),
        means.keys.clone(),
        foundation.keyring.clone(),
        auth.default_roles.clone(),
        config.registration_page(),
        config.reset_page(),
    );
    let webhook_worker = WebhookWorker::new(
        &config.webhooks,
        webhook_clients,
        foundation.store.clone(),
        process.time.clone(),
        foundation.random.clone(),
        process.metrics.clone(),
        foundation.webhook_turn.clone(),
    );
    let instance = || foundation.instance.to_string();
    let exporter = config.telemetry.otlp.as_ref().zip(trace_transport);
    let (traces, exporter) = exporter
        .map(|(otlp, transport)| Exporter::new(otlp, transport, process.metrics.clone(), instance()))
        .unzip();
    let services = Services {
        challenges: process.challenges.clone(),
        traces,
        metrics: process.metrics.clone(),
        access_log: process.logs.access.clone(),
        address_counts: process.address_counts.clone(),
        rates: process.rates.clone(),
        refusal_pages,
    };
    let snapshot =
        Snapshot::new(config, routes, access, Arc::new(builtin_calls), services, &upstream_tls, before);
    Ok(Assembled {
        snapshot: Arc::new(snapshot),
        admin_api: Arc::new(admin_api),
        mail_worker,
        key_followers,
        exporter,
        session_reader,
        webhook_worker: Arc::new(webhook_worker),
    })
}

/// Creates what decides, and what follows the keys of other issuers. Those that are as they were `before` go on with their keys.
fn access(
    foundation: &Foundation,
    config: &Config,
    fetchers: Vec<Fetcher>,
    before: Option<&Arc<Access>>,
) -> (Arc<Access>, Vec<KeyFollower>, Option<SessionReader>) {
    let (auth, process) = (&config.auth, &foundation.process);
    let (time, metrics) = (&process.time, &process.metrics);
    let known = before.map_or(&[][..], |before| before.external_issuers());
    let mut followers = Vec::new();
    let mut asks = None;
    let mut external = Vec::new();
    for (wanted, fetcher) in config.issuers.iter().zip(fetchers) {
        let as_before = known.iter().find(|issuer| issuer.config().is_like(wanted));
        let issuer = as_before.cloned().unwrap_or_else(|| {
            let with_its_keys = known.iter().find(|issuer| wanted.has_keys_of(issuer.config()));
            Arc::new(match with_its_keys {
                Some(before) => ExternalIssuer::with_keys_of(wanted.clone(), before),
                None => ExternalIssuer::new(wanted.clone()),
            })
        });
        if issuer.is_asked_about_tokens() {
            asks = Some((issuer.clone(), fetcher));
        } else if as_before.is_none() {
            followers.push(KeyFollower::new(&issuer, fetcher, time.clone(), metrics.clone()));
        }
        external.push(issuer);
    }
    let keyring = foundation.keyring.clone();
    let mut session_reader = None;
    let cookies = config.browser.as_ref().map(|browser| {
        let (fresh, wanted) = FreshSessions::new(auth);
        session_reader = Some(SessionReader {
            fresh: Arc::downgrade(&fresh),
            wanted,
            claims: auth.claims.clone(),
            mfa: auth.mfa.clone(),
            store: foundation.store.clone(),
            time: time.clone(),
        });
        let issuer = Issuer::new(auth, keyring.clone(), foundation.random.clone());
        Arc::new(SessionCookies::new(issuer, browser, keyring.clone(), fresh))
    });
    let verifier = Arc::new(Verifier::new(auth, keyring, external, cookies));
    foundation.calls.spawn(Verifier::stay_small(Arc::downgrade(&verifier), time.clone()));
    let introspector = asks.and_then(|(issuer, fetcher)| {
        let (verifier, time, metrics) = (verifier.clone(), time.clone(), metrics.clone());
        let refresh_tokens = foundation.root.refresh_tokens();
        let is_own = Box::new(move |token: &str| refresh_tokens.read(token).is_some());
        Introspector::new(&issuer, fetcher, verifier, time, metrics, foundation.calls.clone(), is_own)
    });
    let access = Access::new(
        verifier,
        process.mirror.clone(),
        time.clone(),
        metrics.clone(),
        introspector,
        auth,
        Some(BadKeys::new(
            Attempts::new(foundation.attempts.clone(), auth.throttle),
            foundation.calls.clone(),
        )),
    );
    (Arc::new(access), followers, session_reader)
}

fn accounts(
    foundation: &Foundation,
    means: &Means,
    config: &Config,
    mail: Option<MailQueue>,
    breached_client: Option<HttpClient>,
    cookies: Option<Arc<SessionCookies>>,
) -> Accounts {
    let auth = &config.auth;
    let keyring = foundation.keyring.clone();
    let random = foundation.random.clone();
    Accounts {
        config: auth.clone(),
        store: foundation.store.clone(),
        hasher: means.hasher.clone(),
        breached_service: auth
            .password
            .breached_service
            .clone()
            .zip(breached_client)
            .map(|(service, client)| BreachedService::new(service, client)),
        attempts: Attempts::new(foundation.attempts.clone(), auth.throttle),
        mail,
        issuer: Issuer::new(auth, keyring, random.clone()),
        refresh_tokens: foundation.root.refresh_tokens(),
        cookies,
        device_tokens: foundation.root.device_tokens(),
        factors: factor_means(foundation, config),
        mirror: foundation.process.mirror.clone(),
        revoker: revoker(foundation, config),
        time: foundation.process.time.clone(),
        random,
    }
}

fn factor_means(foundation: &Foundation, config: &Config) -> FactorMeans {
    let name = config.browser.as_ref().map(|browser| browser.pages.name.clone());
    let host = config.public_url.as_ref().map(|url| url.host.clone());
    let service = name.or(host).unwrap_or_else(|| "authgate".to_owned());
    FactorMeans {
        keys: foundation.root.factor_keys(),
        relying_party: config.public_url.as_ref().map(|url| RelyingParty {
            id: url.host.clone(),
            origin: url.origin.clone(),
            name: service.clone(),
        }),
        remembered: foundation.root.remembered_devices(config.auth.mfa.remember_device),
        service,
    }
}

/// Returns the longest life of what a session may hold: a cookie is signed anew until its session ends.
fn longest_life(config: &Config) -> Duration {
    let cookies = config.browser.as_ref().map(|browser| browser.cookies.ttl.max(browser.cookies.remember));
    config.auth.access_token_ttl.max(cookies.unwrap_or_default())
}

fn revoker(foundation: &Foundation, config: &Config) -> Revoker {
    Revoker {
        store: foundation.store.clone(),
        clock: foundation.process.time.clone(),
        gateway: Some((foundation.process.mirror.clone(), longest_life(config))),
    }
}

fn operator(foundation: &Foundation, means: &Means, config: &Config) -> Operator {
    let auth = &config.auth;
    Operator {
        store: foundation.store.clone(),
        hasher: means.hasher.clone(),
        rules: Rules { min_length: auth.password.min_length },
        usernames: auth.username.clone(),
        clock: foundation.process.time.clone(),
        random: Arc::new(OsRandom),
        revoker: revoker(foundation, config),
        has_mail: auth.email.is_some(),
        attributes: auth.attributes.clone(),
    }
}
