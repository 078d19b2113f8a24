//! Whose turn it is on a worker: connections are served in the order in which they become ready, but no client address
//! more often than the others while those wait.
//!
//! A worker's runtime knows tasks, and has one queue. An address with a hundred busy connections would have a hundred
//! places in it, and everybody else would wait behind them at each step of a request. So each address has so many turns a
//! round; a connection beyond them is put off. A round is over when the first that was put off comes back. While one address
//! is alone on the worker, nobody is put off, and it costs a comparison.
//!
//! Whoever is put off, or has moved as many bytes as a turn allows, comes back once the worker has looked at its sockets and
//! served what was ready there, and not before. It is not enough that a task is woken again: while a queue never runs dry
//! the worker looks at its sockets only every 61 tasks (tokio's `event_interval`), and a task whose parts wake each other,
//! as those of an upload do, keeps it from running dry.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use foldhash::quality::RandomState;

use crate::limit::Prefix;

/// Turns of an address in a round: at most a millisecond of work.
const TURNS: u32 = 16;

/// For how many turns of all a second address counts as present.
const MEMORY: u64 = 4_096;

/// Shares that are kept, at least, before those of addresses without connections are looked for.
const FEW: usize = 64;

/// The id of whoever is not bound: a proxy speaks for many.
const UNBOUND: u64 = 0;

/// What the connections of one worker share. Only that worker's thread uses it, so nothing is ever waited for.
pub(super) struct Turns {
    taken: AtomicU64,
    round: AtomicU64,
    last: AtomicU64,
    contended_until: AtomicU64,
    shares: Mutex<Shares>,
}

struct Shares {
    by_address: HashMap<Prefix, Weak<Share>, RandomState>,
    next: u64,
    clean_at: usize,
}

/// What one address has of a worker.
pub(super) struct Share {
    id: u64,
    round: AtomicU64,
    taken: AtomicU32,
}

/// A connection's place: whose it is, and in which round it was put off.
pub(super) struct Place {
    turns: Arc<Turns>,
    share: Option<Arc<Share>>,
    put_off: Option<u64>,
    /// Made when it is first needed, and kept.
    back: Option<Arc<Back>>,
    is_away: bool,
}

/// Whether the worker has looked at its sockets since a connection was put off.
#[derive(Default)]
struct Back {
    came: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Back {
    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Back {
    fn wake(self: Arc<Self>) {
        self.came.store(true, Relaxed);
        if let Some(task) = self.task().take() {
            task.wake();
        }
    }
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU64::new(0),
            round: AtomicU64::new(0),
            last: AtomicU64::new(UNBOUND),
            contended_until: AtomicU64::new(0),
            shares: Mutex::new(Shares { by_address: HashMap::default(), next: 1, clean_at: FEW }),
        })
    }

    /// The place of a connection of `address`; none for whoever is not bound.
    pub(super) fn place(self: &Arc<Self>, address: Option<Prefix>) -> Place {
        let share = address.map(|address| self.share(address));
        Place { turns: self.clone(), share, put_off: None, back: None, is_away: false }
    }

    fn share(&self, address: Prefix) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.by_address.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        if shares.by_address.len() >= shares.clean_at {
            shares.by_address.retain(|_, share| share.strong_count() > 0);
            shares.clean_at = (shares.by_address.len() * 2).max(FEW);
        }
        let share = Arc::new(Share { id: shares.next, round: AtomicU64::new(0), taken: AtomicU32::new(0) });
        shares.next += 1;
        shares.by_address.insert(address, Arc::downgrade(&share));
        share
    }

    /// Whether somebody else was served a short while ago.
    fn is_contended(&self, id: u64) -> bool {
        let taken = self.taken.load(Relaxed) + 1;
        self.taken.store(taken, Relaxed);
        if self.last.load(Relaxed) != id {
            self.last.store(id, Relaxed);
            self.contended_until.store(taken + MEMORY, Relaxed);
        }
        taken < self.contended_until.load(Relaxed)
    }
}

impl Place {
    /// Ready when it is this connection's turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(back) = self.back.as_ref().filter(|_| self.is_away) {
            if !back.came.load(Relaxed) {
                *back.task() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.is_away = false;
        }
        let turns = &*self.turns;
        let mut round = turns.round.load(Relaxed);
        if self.put_off.take() == Some(round) {
            // All that was ready has been served.
            round += 1;
            turns.round.store(round, Relaxed);
        }
        let id = self.share.as_ref().map_or(UNBOUND, |share| share.id);
        let is_contended = turns.is_contended(id);
        let Some(share) = self.share.as_ref().filter(|_| is_contended) else { return Poll::Ready(()) };
        if share.round.swap(round, Relaxed) != round {
            share.taken.store(0, Relaxed);
        }
        let taken = share.taken.load(Relaxed);
        if taken < TURNS {
            share.taken.store(taken + 1, Relaxed);
            return Poll::Ready(());
        }
        self.put_off = Some(round);
        self.leave(cx);
        Poll::Pending
    }

    /// Goes behind all that is ready, also in the worker's sockets.
    pub(super) fn leave(&mut self, cx: &mut Context<'_>) {
        let back = self.back.get_or_insert_default();
        back.came.store(false, Relaxed);
        *back.task() = Some(cx.waker().clone());
        self.is_away = true;
        // The runtime wakes those who yield when it has looked at its sockets.
        let waker = Waker::from(back.clone());
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn prefix(address: &str) -> Prefix {
        Prefix::of(address.parse::<IpAddr>().unwrap())
    }

    /// How many of the places have their turn now.
    fn served(places: &mut [Place]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        places.iter_mut().map(|place| place.poll(&mut cx)).filter(Poll::is_ready).count()
    }

    #[test]
    fn who_is_alone_is_never_put_off() {
        let turns = Turns::new();
        let mut one: Vec<_> = (0..100).map(|_| turns.place(Some(prefix("192.0.2.1")))).collect();
        // At the very beginning nobody knows that nobody else is there.
        for _ in 0..100 {
            served(&mut one);
        }
        assert_eq!(served(&mut one), 100);
    }

    #[test]
    fn an_address_has_so_many_turns_a_round_while_others_are_there() {
        let turns = Turns::new();
        let mut many: Vec<_> = (0..40).map(|_| turns.place(Some(prefix("192.0.2.1")))).collect();
        let mut few: Vec<_> = (0..2).map(|_| turns.place(Some(prefix("192.0.2.2")))).collect();
        assert_eq!(served(&mut few), 2);
        assert_eq!(served(&mut many), TURNS as usize);
        assert_eq!(served(&mut few), 2, "whoever has turns left is served");
        // What was put off comes back and begins the next round.
        assert_eq!(served(&mut many[TURNS as usize..]), TURNS as usize);
        assert_eq!(served(&mut many[2 * TURNS as usize..]), 40 - 2 * TURNS as usize);
    }

    #[test]
    fn whoever_leaves_is_not_served_before_the_worker_has_looked_at_its_sockets() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let turns = Turns::new();
            let mut places = [turns.place(Some(prefix("192.0.2.1")))];
            places[0].leave(&mut Context::from_waker(Waker::noop()));
            assert_eq!((served(&mut places), served(&mut places)), (0, 0), "however often it is woken");
            tokio::task::yield_now().await;
            assert_eq!(served(&mut places), 1);
        });
    }

    #[test]
    fn a_proxy_that_speaks_for_many_is_not_bound() {
        let turns = Turns::new();
        let mut proxy: Vec<_> = (0..100).map(|_| turns.place(None)).collect();
        let mut other = [turns.place(Some(prefix("192.0.2.2")))];
        assert_eq!(served(&mut other), 1);
        assert_eq!(served(&mut proxy), 100);
    }

    #[test]
    fn shares_of_those_who_left_are_forgotten() {
        let turns = Turns::new();
        for number in 0..10_000_u32 {
            drop(turns.place(Some(Prefix::of(IpAddr::V4(number.into())))));
        }
        assert!(turns.shares.lock().unwrap().by_address.len() <= FEW);
    }
}
