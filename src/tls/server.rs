//! The settings of a listener's TLS, which follow its files.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ServerConfig,
    crypto::aws_lc_rs::Ticketer,
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use thiserror::Error;

use super::{
    Issued, Names,
    certificate::{Pair, PairBytes, authorities, read},
    challenge::{ACME_TLS, Challenges},
    provider,
};
use crate::config::{self, TlsVersion};

/// A certificate, a key or a setting cannot be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TlsError(pub(super) String);

/// A certificate as clients are shown it.
#[derive(Debug)]
pub struct Shown {
    pair: Arc<Pair>,
    settings: Arc<ServerConfig>,
    /// The same with the suites in the client's order.
    by_client_order: Arc<ServerConfig>,
    /// Which clients it is shown to.
    clients: Arc<Clients>,
}

impl Shown {
    fn new(
        config: &config::ListenerTls,
        protocols: &[Vec<u8>],
        pair: Arc<Pair>,
        clients: &Arc<Clients>,
    ) -> Result<Self, TlsError> {
        let versions: &[_] = match config.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let mut settings = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(|error| TlsError(error.to_string()))?
            .with_client_cert_verifier(clients.verifier.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key.clone())));
        settings.ticketer = clients.tickets.clone();
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        settings.alpn_protocols = protocols.to_vec();
        let by_client_order = Arc::new(settings.clone());
        settings.ignore_client_order = true;
        Ok(Self { pair, settings: Arc::new(settings), by_client_order, clients: clients.clone() })
    }

    /// Returns the hosts that the certificate is for.
    pub fn names(&self) -> &Names {
        &self.pair.names
    }

    /// Returns the settings of connections that are shown it, to a client with these suites. One that prefers ChaCha20 has no
    /// instructions for AES, and chooses for itself.
    pub(super) fn settings(&self, suites: &[CipherSuite]) -> &Arc<ServerConfig> {
        let chacha = [
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        // What comes before may be a suite that stands for none (RFC 8701).
        let first = suites.iter().find(|suite| suite.as_str().is_some_and(|name| name.starts_with("TLS")));
        if first.is_some_and(|first| chacha.contains(first)) { &self.by_client_order } else { &self.settings }
    }
}

/// What became of the files of a certificate since they were read last.
#[derive(Debug)]
pub enum Refreshed {
    /// They were taken up.
    TakenUp(String),
    /// They cannot be used; what was read before goes on.
    Refused(TlsError),
}

/// TLS of a listener.
#[derive(Debug)]
pub struct ServerTls {
    config: config::ListenerTls,
    protocols: Vec<Vec<u8>>,
    current: ArcSwap<Current>,
    /// Held while what is current is replaced.
    replacing: Mutex<()>,
    /// What proves names to an authority, once that is known.
    challenges: OnceLock<Arc<Challenges>>,
    /// The contents that were refused last, for each pair and at the end for the authorities, so that each is told once.
    refused: Mutex<Vec<Option<String>>>,
}

/// What the files held when they were read.
#[derive(Debug)]
struct Current {
    authorities: Option<Vec<u8>>,
    clients: Arc<Clients>,
    pairs: Vec<Loaded>,
    /// What an authority has issued.
    issued: Vec<Arc<Shown>>,
    by_name: HashMap<Box<str>, Arc<Shown>>,
}

/// A pair of files that was taken up.
#[derive(Debug, Clone)]
struct Loaded {
    bytes: Arc<PairBytes>,
    shown: Arc<Shown>,
}

/// What concerns the clients of a listener: who they must be, and the tickets by which they come back.
#[derive(Debug)]
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Clients {
    fn new(config: &config::ListenerTls, authority: Option<&[u8]>) -> Result<Self, TlsError> {
        let verifier = match (&config.client_certificates, authority) {
            (Some(clients), Some(bytes)) => {
                let roots = authorities(bytes, &clients.ca)?;
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
                builder.build().map_err(|error| TlsError(format!("{}: {error}", clients.ca.display())))?
            }
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        // Made anew with the authorities: a ticket stands for the certificate that was shown before.
        let tickets = Ticketer::new().map_err(|error| TlsError(format!("tickets: {error}")))?;
        Ok(Self { verifier, tickets })
    }
}

impl ServerTls {
    /// Reads the files of `config`. `protocols` are those that are spoken, by their names in ALPN (RFC 7301), the preferred
    /// one first.
    ///
    /// # Errors
    /// Each file that cannot be used, with where it stands in the config.
    pub fn load(
        config: &config::ListenerTls,
        protocols: &[&str],
    ) -> Result<Self, Vec<(config::Source, TlsError)>> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut errors = Vec::new();
        let authority = config.client_certificates.as_ref().map(|clients| {
            let bytes = read(&clients.ca);
            bytes.map_err(|error| errors.push((clients.source.clone(), error))).unwrap_or_default()
        });
        let clients = Clients::new(config, authority.as_deref()).map(Arc::new);
        let clients = clients.map_err(|error| {
            // A file that could not be read is told already.
            if let (Some(clients), true) = (&config.client_certificates, errors.is_empty()) {
                errors.push((clients.source.clone(), error));
            }
        });
        let pairs: Vec<_> = config
            .certificates
            .iter()
            .filter_map(|files| {
                let parsed =
                    PairBytes::read(files).and_then(|bytes| Ok((Pair::parse(&bytes, files)?, bytes)));
                let parsed = parsed.and_then(|(pair, bytes)| {
                    let Ok(clients) = &clients else { return Ok(None) };
                    let shown = Arc::new(Shown::new(config, &protocols, Arc::new(pair), clients)?);
                    Ok(Some(Loaded { bytes: Arc::new(bytes), shown }))
                });
                parsed.map_err(|error| errors.push((files.source.clone(), error))).ok()?
            })
            .collect();
        let (Ok(clients), true) = (clients, errors.is_empty()) else { return Err(errors) };
        let refused = Mutex::new(vec![None; config.certificates.len() + 1]);
        let current = ArcSwap::from_pointee(Current::new(authority, clients, pairs, Vec::new()));
        Ok(Self {
            config: config.clone(),
            protocols,
            current,
            replacing: Mutex::default(),
            challenges: OnceLock::new(),
            refused,
        })
    }

    /// Returns the certificate for a client that asks for `host`, in lower case. None as long as no certificate was issued, and there
    /// are none in files.
    pub fn choose(&self, host: Option<&str>) -> Option<Arc<Shown>> {
        let current = self.current.load();
        let known = host.and_then(|host| {
            let wildcard = || host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            let exact = current.by_name.get(host);
            exact.or_else(|| current.by_name.get(wildcard()?.as_str()))
        });
        known.or_else(|| current.all().next()).cloned()
    }

    /// Returns whether certificates are wanted that an authority issues.
    pub fn wants_issued(&self) -> bool {
        self.config.acme
    }

    /// Takes over what an authority has issued, and what proves names to it. Does nothing if these are not wanted.
    ///
    /// # Errors
    /// When one of them cannot be shown; none is taken over then.
    pub fn set_issued(&self, issued: &[Issued], challenges: &Arc<Challenges>) -> Result<(), TlsError> {
        if !self.config.acme {
            return Ok(());
        }
        // It is the same whoever says it.
        let _ = self.challenges.set(challenges.clone());
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let is_same = before.issued.len() == issued.len()
            && before.issued.iter().zip(issued).all(|(shown, new)| Arc::ptr_eq(&shown.pair, &new.pair));
        if is_same {
            return Ok(());
        }
        let show = |new: &Issued| {
            Shown::new(&self.config, &self.protocols, new.pair.clone(), &before.clients).map(Arc::new)
        };
        let issued = issued.iter().map(show).collect::<Result<_, _>>()?;
        let (authority, clients) = (before.authorities.clone(), before.clients.clone());
        let current = Current::new(authority, clients, before.pairs.clone(), issued);
        self.current.store(Arc::new(current));
        Ok(())
    }

    /// Returns the settings of a handshake by which an authority makes sure of `host`, in lower case: one that offers `protocols`,
    /// while that is pending.
    pub(super) fn proof(&self, host: &str, protocols: &[&[u8]]) -> Option<Arc<ServerConfig>> {
        let challenges = self.challenges.get().filter(|_| protocols == [ACME_TLS])?;
        challenges.settings(host)
    }

    /// Returns whether a connection on which `shown` was shown could be made today: the clients that are accepted are the same.
    pub fn still_accepts(&self, shown: &Shown) -> bool {
        self.config.client_certificates.is_none() || Arc::ptr_eq(&self.current.load().clients, &shown.clients)
    }

    /// Returns whether upstreams are told the subject of a client's certificate.
    pub fn forwards_subject(&self) -> bool {
        self.config.client_certificates.as_ref().is_some_and(|clients| clients.forward)
    }

    /// Returns a name of each certificate, and when it expires, in seconds since the Unix epoch.
    pub fn expiries(&self) -> Vec<(String, u64)> {
        let current = self.current.load();
        current.all().map(|shown| (shown.names().first(), shown.pair.expires)).collect()
    }

    /// Reads the files again, and takes up those that have changed. A pair is taken up as a whole, or not at all.
    pub fn refresh(&self) -> Vec<Refreshed> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let mut told = Vec::new();
        let (authority, clients) = match self.changed_authorities(&before) {
            Ok(None) => (before.authorities.clone(), before.clients.clone()),
            Ok(Some((bytes, clients))) => {
                told.push(Refreshed::TakenUp("client certificates".to_owned()));
                (Some(bytes), Arc::new(clients))
            }
            Err(error) => {
                self.tell_once(self.config.certificates.len(), error, &mut told);
                (before.authorities.clone(), before.clients.clone())
            }
        };
        let has_new_clients = !Arc::ptr_eq(&clients, &before.clients);
        let mut changed = has_new_clients;
        let mut pairs = Vec::with_capacity(before.pairs.len());
        for (index, (files, loaded)) in self.config.certificates.iter().zip(&before.pairs).enumerate() {
            let show = |pair| Shown::new(&self.config, &self.protocols, pair, &clients).map(Arc::new);
            let renewed = changed_pair(files, loaded).and_then(|changed| {
                let Some((bytes, pair)) = changed else { return Ok(None) };
                Ok(Some(Loaded { bytes: Arc::new(bytes), shown: show(Arc::new(pair))? }))
            });
            match renewed {
                Ok(Some(renewed)) => {
                    changed = true;
                    self.forget(index);
                    told.push(Refreshed::TakenUp(renewed.shown.names().first()));
                    pairs.push(renewed);
                    continue;
                }
                Ok(None) => self.forget(index),
                Err(error) => self.tell_once(index, error, &mut told),
            }
            // What goes on does so for the clients that are accepted now.
            let shown =
                if has_new_clients { show(loaded.shown.pair.clone()) } else { Ok(loaded.shown.clone()) };
            match shown {
                Ok(shown) => pairs.push(Loaded { bytes: loaded.bytes.clone(), shown }),
                Err(error) => {
                    // Neither is taken up; the next look tries both again.
                    self.tell_once(index, error, &mut told);
                    return told;
                }
            }
        }
        if changed {
            let reshow = |shown: &Arc<Shown>| {
                let pair = shown.pair.clone();
                Shown::new(&self.config, &self.protocols, pair, &clients).map(Arc::new)
            };
            let issued = if has_new_clients {
                before.issued.iter().map(reshow).collect()
            } else {
                Ok(before.issued.clone())
            };
            match issued {
                Ok(issued) => {
                    self.current.store(Arc::new(Current::new(authority, clients, pairs, issued)));
                }
                Err(error) => told.push(Refreshed::Refused(error)),
            }
        }
        told
    }

    fn changed_authorities(&self, before: &Current) -> Result<Option<(Vec<u8>, Clients)>, TlsError> {
        let Some(clients) = &self.config.client_certificates else { return Ok(None) };
        let bytes = read(&clients.ca)?;
        if before.authorities.as_ref() == Some(&bytes) {
            return Ok(None);
        }
        let clients = Clients::new(&self.config, Some(&bytes))?;
        self.forget(self.config.certificates.len());
        Ok(Some((bytes, clients)))
    }

    /// Says why files are refused, unless that was said before and nothing has changed since.
    fn tell_once(&self, index: usize, error: TlsError, told: &mut Vec<Refreshed>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused[index].as_ref() != Some(&error.0) {
            refused[index] = Some(error.0.clone());
            told.push(Refreshed::Refused(error));
        }
    }

    fn forget(&self, index: usize) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)[index] = None;
    }
}

/// Returns a pair as it is now, if its files have changed.
fn changed_pair(
    files: &config::CertificateFiles,
    loaded: &Loaded,
) -> Result<Option<(PairBytes, Pair)>, TlsError> {
    let bytes = PairBytes::read(files)?;
    if bytes == *loaded.bytes {
        return Ok(None);
    }
    let pair = Pair::parse(&bytes, files)?;
    Ok(Some((bytes, pair)))
}

impl Current {
    fn new(
        authorities: Option<Vec<u8>>,
        clients: Arc<Clients>,
        pairs: Vec<Loaded>,
        issued: Vec<Arc<Shown>>,
    ) -> Self {
        let mut current = Self { authorities, clients, pairs, issued, by_name: HashMap::new() };
        let mut by_name = HashMap::new();
        for shown in current.all() {
            for name in shown.names().all() {
                // The first that has a name is the one for it: what lies in files goes before what was issued.
                by_name.entry(name).or_insert_with(|| shown.clone());
            }
        }
        current.by_name = by_name;
        current
    }

    /// Returns all certificates, those in files first.
    fn all(&self) -> impl Iterator<Item = &Arc<Shown>> {
        self.pairs.iter().map(|loaded| &loaded.shown).chain(&self.issued)
    }
}
