//! Looks up the addresses of a server's name, outside the workers.
//!
//! The system's own lookup blocks, and may hang for as long as its servers do. So it runs on a thread of its own,
//! at most one at a time for a name. A request that has addresses already does not wait for it.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How long addresses are used before the name is looked up again. The system's lookup tells no TTL.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How long addresses are used while the name is being looked up again.
const RECENT_FOR: Duration = Duration::from_secs(150);

/// How long a failed lookup is not repeated.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Finds the addresses of `host:port`; may block.
type Lookup = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// The addresses of one name.
pub(super) struct Resolver {
    authority: Arc<str>,
    lookup: Lookup,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    addresses: Option<Arc<[SocketAddr]>>,
    /// Why the last lookup failed, if it did.
    error: Option<(io::ErrorKind, String)>,
    /// When it ended; never for an address that needs none.
    looked_up_at: Option<Instant>,
    fixed: bool,
    running: bool,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver {
    /// A resolver of `authority`, a name or an address with a port.
    pub(super) fn new(authority: &str) -> Self {
        Self::with(authority, |authority| authority.to_socket_addrs().map(Iterator::collect))
    }

    fn with(authority: &str, lookup: Lookup) -> Self {
        let state = Arc::<State>::default();
        if let Ok(address) = authority.parse::<SocketAddr>() {
            let mut known = state.lock();
            known.addresses = Some([address].into());
            known.fixed = true;
        }
        Self { authority: authority.into(), lookup, state }
    }

    /// The addresses, at once if any are known: those of the last lookup that succeeded.
    ///
    /// # Errors
    /// When none are known and the lookup failed.
    pub(super) async fn addresses(&self) -> io::Result<Arc<[SocketAddr]>> {
        loop {
            // Heard from before the state is read, so that no change falls between.
            let changed = self.state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut known = self.state.lock();
                let span = if known.error.is_some() { FAILED_FOR } else { FRESH_FOR };
                let settled = known.fixed || known.looked_up_at.is_some_and(|at| at.elapsed() < span);
                if !settled && !known.running {
                    known.running = true;
                    if let Err(error) = self.start() {
                        known.running = false;
                        if known.addresses.is_none() {
                            return Err(error);
                        }
                    }
                }
                // Old addresses may belong to another server by now, so the request waits for the lookup.
                let recent = known.fixed
                    || known.error.is_some()
                    || known.looked_up_at.is_some_and(|at| at.elapsed() < RECENT_FOR);
                if let Some(addresses) = known.addresses.as_ref().filter(|_| recent || !known.running) {
                    return Ok(addresses.clone());
                }
                if let Some((kind, text)) = known.error.as_ref().filter(|_| settled) {
                    return Err(io::Error::new(*kind, text.clone()));
                }
            }
            changed.await;
        }
    }

    fn start(&self) -> io::Result<()> {
        let (authority, lookup, state) = (self.authority.clone(), self.lookup, self.state.clone());
        let run = move || {
            let found = lookup(&authority).and_then(|found| match found.is_empty() {
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                false => Ok(found),
            });
            let mut known = state.lock();
            known.running = false;
            known.looked_up_at = Some(Instant::now());
            match found {
                Ok(found) => {
                    known.addresses = Some(found.into());
                    known.error = None;
                }
                // The last addresses are kept: the servers are more likely to be there than the name's.
                Err(error) => known.error = Some((error.kind(), error.to_string())),
            }
            drop(known);
            state.changed.notify_waiters();
        };
        std::thread::Builder::new().name("resolve".to_owned()).spawn(run).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let resolver = Resolver::with("127.0.0.1:80", |_| panic!("looked up"));
        assert_eq!(*resolver.addresses().await.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn many_who_ask_at_once_are_one_lookup() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let resolver = Arc::new(Resolver::with("name:80", |_| {
            LOOKUPS.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(50));
            Ok(vec![([127, 0, 0, 1], 80).into()])
        }));
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let resolver = resolver.clone();
                tokio::spawn(async move { resolver.addresses().await.unwrap().len() })
            })
            .collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap(), 1);
        }
        assert_eq!(LOOKUPS.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_lookup_that_fails_keeps_the_last_addresses() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let resolver = Resolver::with("name:80", |_| match LOOKUPS.fetch_add(1, SeqCst) {
            0 => Ok(vec![([127, 0, 0, 1], 80).into()]),
            _ => Err(io::Error::other("no name server")),
        });
        assert!(resolver.addresses().await.is_ok());
        resolver.state.lock().looked_up_at = Instant::now().checked_sub(FRESH_FOR);
        for _ in 0..3 {
            assert!(resolver.addresses().await.is_ok());
            while resolver.state.lock().running {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(LOOKUPS.load(SeqCst), 2);
        let resolver = Resolver::with("name:80", |_| Err(io::Error::other("no name server")));
        assert_eq!(resolver.addresses().await.unwrap_err().to_string(), "no name server");
    }
}
