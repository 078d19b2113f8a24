//! Whose turn it is on a worker: connections are served in the order in which they become ready, but no client address
//! more often than the others while those wait.
//!
//! A worker's runtime knows tasks, and has one queue. An address with a hundred busy connections would have a hundred
//! places in it, and everybody else would wait behind them at each step of a request. So each address has so many turns a
//! round; its connections beyond them wait in a line of their own, the first come first. A round is over when the worker has
//! looked at its sockets and served what was ready there. While one address is alone on the worker, nobody is put off, and
//! it costs a comparison.
//!
//! Whoever has moved as many bytes as a turn allows also comes back at the next round, and not before. It is not enough that
//! a task is woken again: while a queue never runs dry the worker looks at its sockets only every 61 tasks (tokio's
//! `event_interval`), and a task whose parts wake each other, as those of an upload do, keeps it from running dry.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    hash::BuildHasher,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use foldhash::quality::RandomState;

use super::client::{Peer, TrustedProxies};
use crate::limit::Prefix;

/// Turns of an address in a round: a fraction of a millisecond of work.
const TURNS: u32 = 16;

/// What an address moves in a round, in bytes: its turns are the fewer the more it moves in each.
const ROUND_BYTES: u64 = 64 << 10;

/// How many turns a large one is remembered for.
const COST_MEMORY: u64 = 16;

/// For how many turns of all a second address counts as present.
const MEMORY: u64 = 4_096;

/// Shares that are kept, at least, before those of addresses without connections are looked for.
const FEW: usize = 64;

/// The id of connections without a bound: a trusted proxy carries many clients.
const UNBOUND: u64 = 0;

/// The id before the first turn, which no address has.
const NOBODY: u64 = 1;

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the connections of one worker share. Only that worker's thread uses it, so nothing is ever waited for.
pub(super) struct Turns {
    taken: AtomicU64,
    round: AtomicU64,
    last: AtomicU64,
    contended_until: AtomicU64,
    shares: Mutex<Shares>,
    suspended: Mutex<Suspended>,
}

struct Shares {
    by_address: HashMap<Prefix, Weak<Share>, RandomState>,
    clean_at: usize,
}

/// Who waits for the next round.
#[derive(Default)]
struct Suspended {
    /// Whether the runtime will say when it has looked at the sockets.
    is_requested: bool,
    /// Connections that have spent their turns.
    spent: Vec<Arc<Waiter>>,
    /// Shares with lines of connections that wait for a turn.
    lines: Vec<Arc<Share>>,
}

/// The share of one address in a worker.
pub(super) struct Share {
    /// A hash of the address, so that a client that connects anew is not taken for another one.
    id: u64,
    round: AtomicU64,
    taken: AtomicU32,
    /// Turns that were granted and not begun: rounds may follow each other faster than tasks are run.
    granted: AtomicU32,
    /// The expected bytes of a turn, from the last ones.
    cost: AtomicU64,
    line: Mutex<VecDeque<Arc<Waiter>>>,
}

impl Share {
    fn turns(&self) -> u32 {
        let turns = ROUND_BYTES / self.cost.load(Relaxed).max(1);
        u32::try_from(turns).unwrap_or(u32::MAX).clamp(1, TURNS)
    }
}

/// A connection's place: whose it is, and whether it waits for a round.
pub(super) struct Place {
    turns: Arc<Turns>,
    share: Option<Arc<Share>>,
    /// Made when it is first needed, and kept.
    waiter: Option<Arc<Waiter>>,
    is_suspended: bool,
}

/// How far a suspended connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    /// It waits.
    #[default]
    Waiting,
    /// The worker has looked at its sockets since.
    Seen,
    /// And it is this one's turn.
    Granted,
}

/// A connection that is suspended.
#[derive(Default)]
struct Waiter {
    state: Mutex<(Progress, Option<Waker>)>,
}

impl Waiter {
    fn resume(&self, progress: Progress) {
        let mut own = lock(&self.state);
        own.0 = progress;
        if let Some(task) = own.1.take() {
            task.wake();
        }
    }
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU64::new(0),
            round: AtomicU64::new(0),
            last: AtomicU64::new(NOBODY),
            contended_until: AtomicU64::new(0),
            shares: Mutex::new(Shares { by_address: HashMap::default(), clean_at: FEW }),
            suspended: Mutex::default(),
        })
    }

    /// Creates the place of a connection of `address`, or of one without a bound.
    fn place(self: &Arc<Self>, address: Option<Prefix>) -> Place {
        let share = address.map(|address| self.share(address));
        Place { turns: self.clone(), share, waiter: None, is_suspended: false }
    }

    /// Creates the place of a connection of `peer`. Proxies that are trusted speak for many, and have no bound.
    pub(super) fn place_of(self: &Arc<Self>, peer: &Peer, trusted: &TrustedProxies) -> Place {
        self.place((!peer.is_trusted(trusted)).then(|| Prefix::of(peer.address())))
    }

    fn share(&self, address: Prefix) -> Arc<Share> {
        let mut shares = lock(&self.shares);
        if let Some(share) = shares.by_address.get(&address).and_then(Weak::upgrade) {
            return share;
        }
        if shares.by_address.len() >= shares.clean_at {
            shares.by_address.retain(|_, share| share.strong_count() > 0);
            shares.clean_at = (shares.by_address.len() * 2).max(FEW);
        }
        let id = shares.by_address.hasher().hash_one(address).max(NOBODY + 1);
        let round = AtomicU64::new(0);
        let (taken, granted, cost) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        let share = Arc::new(Share { id, round, taken, granted, cost, line: Mutex::default() });
        shares.by_address.insert(address, Arc::downgrade(&share));
        share
    }

    /// Returns whether another address had a turn a short while ago.
    fn is_contended(&self, id: u64) -> bool {
        let taken = self.taken.load(Relaxed);
        let last = self.last.load(Relaxed);
        if last != id {
            self.last.store(id, Relaxed);
            if last != NOBODY {
                self.contended_until.store(taken + MEMORY, Relaxed);
            }
        }
        taken < self.contended_until.load(Relaxed)
    }

    fn count_turn(&self) {
        self.taken.store(self.taken.load(Relaxed) + 1, Relaxed);
    }

    /// Asks the runtime to say when it has looked at its sockets, which it tells those who yield. One that is ending says
    /// so at once, so nothing is locked meanwhile.
    fn request_round(self: &Arc<Self>, mut suspended: MutexGuard<'_, Suspended>) {
        if !std::mem::replace(&mut suspended.is_requested, true) {
            drop(suspended);
            let waker = Waker::from(self.clone());
            let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
        }
    }
}

/// The worker has looked at its sockets: a round begins. The runtime is at those who yield while it says so, and nobody may
/// yield in here.
impl Wake for Turns {
    fn wake(self: Arc<Self>) {
        let mut suspended = lock(&self.suspended);
        suspended.is_requested = false;
        let round = self.round.load(Relaxed) + 1;
        self.round.store(round, Relaxed);
        for waiter in suspended.spent.drain(..) {
            waiter.resume(Progress::Seen);
        }
        // A connection that comes back asks for the next round if another one still waits.
        suspended.lines.retain(|share| {
            let mut line = lock(&share.line);
            let before = share.granted.load(Relaxed);
            let count = line.len().min(share.turns().saturating_sub(before) as usize);
            let granted = before + count as u32;
            share.round.store(round, Relaxed);
            share.taken.store(granted, Relaxed);
            share.granted.store(granted, Relaxed);
            line.drain(..count).for_each(|waiter| waiter.resume(Progress::Granted));
            !line.is_empty()
        });
    }
}

impl Place {
    /// Ready when it is this connection's turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiter) = self.waiter.as_ref().filter(|_| self.is_suspended) {
            let mut own = lock(&waiter.state);
            match own.0 {
                Progress::Waiting => {
                    own.1 = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                progress => {
                    drop(own);
                    self.is_suspended = false;
                    let suspended = lock(&self.turns.suspended);
                    if !suspended.lines.is_empty() {
                        self.turns.request_round(suspended);
                    }
                    if progress == Progress::Granted {
                        self.use_grant();
                        self.turns.count_turn();
                        return Poll::Ready(());
                    }
                }
            }
        }
        let id = self.share.as_ref().map_or(UNBOUND, |share| share.id);
        let is_contended = self.turns.is_contended(id);
        if let Some(share) = self.share.as_ref().filter(|_| is_contended) {
            let round = self.turns.round.load(Relaxed);
            if share.round.swap(round, Relaxed) != round {
                share.taken.store(share.granted.load(Relaxed), Relaxed);
            }
            let taken = share.taken.load(Relaxed);
            if taken >= share.turns() || !lock(&share.line).is_empty() {
                self.enqueue(cx);
                return Poll::Pending;
            }
            share.taken.store(taken + 1, Relaxed);
        }
        self.turns.count_turn();
        Poll::Ready(())
    }

    /// Records the bytes that the turn moved.
    pub(super) fn record(&self, bytes: u64) {
        if let Some(share) = &self.share {
            let before = share.cost.load(Relaxed);
            share.cost.store(bytes.max(before - before.div_ceil(COST_MEMORY)), Relaxed);
        }
    }

    fn use_grant(&self) {
        if let Some(share) = &self.share {
            share.granted.store(share.granted.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }

    fn suspend(&mut self, cx: &Context<'_>) -> Arc<Waiter> {
        let waiter = self.waiter.get_or_insert_default();
        *lock(&waiter.state) = (Progress::Waiting, Some(cx.waker().clone()));
        self.is_suspended = true;
        waiter.clone()
    }

    /// Waits for a turn behind the others of its address.
    fn enqueue(&mut self, cx: &Context<'_>) {
        let waiter = self.suspend(cx);
        let Some(share) = &self.share else { return };
        let mut suspended = lock(&self.turns.suspended);
        let mut line = lock(&share.line);
        line.push_back(waiter);
        if line.len() == 1 {
            suspended.lines.push(share.clone());
        }
        drop(line);
        self.turns.request_round(suspended);
    }

    /// Goes behind all that is ready, also in the worker's sockets; nothing where it is suspended already.
    pub(super) fn end(&mut self, cx: &Context<'_>) {
        if self.is_suspended {
            return;
        }
        let waiter = self.suspend(cx);
        let mut suspended = lock(&self.turns.suspended);
        suspended.spent.push(waiter);
        self.turns.request_round(suspended);
    }
}

/// A connection that ends while it waits leaves no gap: the round that it was granted may be another's.
impl Drop for Place {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.as_ref().filter(|_| self.is_suspended) else { return };
        if lock(&waiter.state).0 == Progress::Granted {
            self.use_grant();
        }
        let mut suspended = lock(&self.turns.suspended);
        suspended.spent.retain(|other| !Arc::ptr_eq(other, waiter));
        if let Some(share) = &self.share {
            let mut line = lock(&share.line);
            line.retain(|other| !Arc::ptr_eq(other, waiter));
            if line.is_empty() {
                suspended.lines.retain(|other| !Arc::ptr_eq(other, share));
            }
        }
        if !suspended.lines.is_empty() {
            self.turns.request_round(suspended);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn prefix(address: &str) -> Prefix {
        Prefix::of(address.parse::<IpAddr>().unwrap())
    }

    /// Which of the places have their turn now.
    fn served(places: &mut [Place]) -> Vec<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        (0..places.len()).filter(|&index| places[index].poll(&mut cx).is_ready()).collect()
    }

    /// Runs on a runtime, which looks at its sockets whenever this yields.
    fn on_a_worker(test: impl AsyncFnOnce(&Arc<Turns>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(test(&Turns::new()));
    }

    fn places(turns: &Arc<Turns>, address: Option<&str>, count: usize) -> Vec<Place> {
        (0..count).map(|_| turns.place(address.map(prefix))).collect()
    }

    #[test]
    fn who_is_alone_is_never_put_off_nor_when_it_comes_back() {
        on_a_worker(async |turns| {
            for _ in 0..3 {
                let mut one = places(turns, Some("192.0.2.1"), 100);
                assert_eq!(served(&mut one).len(), 100);
            }
        });
    }

    #[test]
    fn an_address_has_so_many_turns_a_round_while_others_are_there_and_all_come_to_theirs_in_order() {
        on_a_worker(async |turns| {
            let mut many = places(turns, Some("192.0.2.1"), 60);
            let mut few = places(turns, Some("192.0.2.2"), 2);
            assert_eq!(served(&mut few).len(), 2);
            assert_eq!(served(&mut many), (0..16).collect::<Vec<_>>());
            assert_eq!(served(&mut few).len(), 2, "whoever has turns left is served");
            // Those that were served come again at once, and stand at the end of the line.
            assert!(served(&mut many).is_empty());
            for expected in [16..32, 32..48, 48..60] {
                tokio::task::yield_now().await;
                let wanted: Vec<usize> = expected.clone().collect();
                let found: Vec<usize> =
                    served(&mut many).into_iter().filter(|index| expected.contains(index)).collect();
                assert_eq!(found, wanted);
                assert_eq!(served(&mut few).len(), 2);
            }
        });
    }

    #[test]
    fn an_address_that_moves_much_in_each_turn_has_the_fewer_of_them() {
        on_a_worker(async |turns| {
            let mut many = places(turns, Some("192.0.2.1"), 60);
            let mut few = places(turns, Some("192.0.2.2"), 1);
            let mut round = async |moved| {
                tokio::task::yield_now().await;
                served(&mut few);
                let served = served(&mut many);
                served.iter().for_each(|&index| many[index].record(moved));
                served.len()
            };
            assert_eq!(round(64 << 10).await, 16);
            assert_eq!(round(64 << 10).await, 1);
            for _ in 0..30 {
                round(1 << 10).await;
            }
            assert_eq!(round(1 << 10).await, 16, "what was moved long ago does not count");
        });
    }

    #[test]
    fn whoever_leaves_is_not_served_before_the_worker_has_looked_at_its_sockets() {
        on_a_worker(async |turns| {
            let mut one = places(turns, Some("192.0.2.1"), 1);
            one[0].end(&Context::from_waker(Waker::noop()));
            assert_eq!((served(&mut one), served(&mut one)), (vec![], vec![]), "however often it is woken");
            tokio::task::yield_now().await;
            assert_eq!(served(&mut one), [0]);
        });
    }

    #[test]
    fn whoever_ends_while_it_waits_holds_up_nobody() {
        on_a_worker(async |turns| {
            let mut many = places(turns, Some("192.0.2.1"), 40);
            served(&mut places(turns, Some("192.0.2.2"), 1));
            assert_eq!(served(&mut many).len(), 16);
            drop(many.drain(16..38));
            tokio::task::yield_now().await;
            assert_eq!(served(&mut many[16..]), [0, 1]);
        });
    }

    #[test]
    fn a_proxy_that_speaks_for_many_is_not_bound() {
        on_a_worker(async |turns| {
            let mut proxy = places(turns, None, 100);
            assert_eq!(served(&mut places(turns, Some("192.0.2.2"), 1)).len(), 1);
            assert_eq!(served(&mut proxy).len(), 100);
        });
    }

    #[test]
    fn shares_of_those_who_left_are_forgotten() {
        let turns = Turns::new();
        for number in 0..10_000_u32 {
            drop(turns.place(Some(Prefix::of(IpAddr::V4(number.into())))));
        }
        assert!(lock(&turns.shares).by_address.len() <= FEW);
    }
}
