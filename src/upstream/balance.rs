//! Which of several servers a request goes to.

use crate::config::Balance;

/// A server that may get the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its place among all servers of the cluster.
    pub(super) index: usize,
    /// Its share, relative to the others.
    pub(super) weight: u64,
    /// The requests of this worker that it has.
    pub(super) load: usize,
    /// What it is known by, as [`hash`] has it: the same on every gateway.
    pub(super) id: u64,
}

/// The state of a worker's choices.
pub(super) struct Balancer {
    random: u64,
    /// What each server has in hand of its turns, by its place.
    turns: Vec<i64>,
}

impl Balancer {
    /// Creates a balancer; `seed` is random.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed | 1, turns: Vec::new() }
    }

    /// Forgets whose turn it is: the servers have changed.
    pub(super) fn begin_anew(&mut self) {
        self.turns.clear();
    }

    /// Returns the place of the server for a request. `key` is what requests with the same server have in common.
    pub(super) fn choose(&mut self, balance: &Balance, candidates: &[Candidate], key: u64) -> Option<usize> {
        match candidates {
            [] => None,
            [only] => Some(only.index),
            _ => match balance {
                Balance::LeastRequests => self.least_requests(candidates),
                Balance::RoundRobin => self.round_robin(candidates),
                Balance::Hash(_) => rendezvous(candidates, key),
            },
        }
    }

    /// Of two at random, by their weights, the one with fewer requests for its weight.
    fn least_requests(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let first = self.draw(candidates, None)?;
        let second = self.draw(candidates, Some(first.index))?;
        // One more must not make it the busier of the two; so idle servers keep the shares by which they were drawn.
        let (load, other) = (first.load as u64, second.load as u64 + 1);
        let is_less = other.saturating_mul(first.weight) <= load.saturating_mul(second.weight);
        Some(if is_less { second.index } else { first.index })
    }

    /// Draws a server by its weight, but not the one at the place `other`.
    fn draw<'a>(&mut self, candidates: &'a [Candidate], other: Option<usize>) -> Option<&'a Candidate> {
        let drawn = || candidates.iter().filter(|candidate| Some(candidate.index) != other);
        let mut at = self.below(drawn().map(|candidate| candidate.weight).sum());
        drawn().find(|candidate| {
            let is_there = at < candidate.weight;
            at = at.saturating_sub(candidate.weight);
            is_there
        })
    }

    /// A random number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        // Marsaglia's xorshift (Journal of Statistical Software 8, 14), and a multiplication in place of a division.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(end)) >> 64) as u64
    }

    /// Each as often as its weight says, and as evenly spread as can be: nginx's smooth weighted round robin.
    fn round_robin(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let places = candidates.iter().map(|candidate| candidate.index + 1).max()?;
        if self.turns.len() < places {
            self.turns.resize(places, 0);
        }
        let weight = |candidate: &Candidate| i64::try_from(candidate.weight).unwrap_or(i64::MAX / 4096);
        for candidate in candidates {
            self.turns[candidate.index] += weight(candidate);
        }
        let chosen = candidates
            .iter()
            .map(|candidate| candidate.index)
            .rev()
            .max_by_key(|index| self.turns[*index])?;
        self.turns[chosen] -= candidates.iter().map(weight).sum::<i64>();
        Some(chosen)
    }
}

/// The server with the highest score for a key (Thaler and Ravishankar, 1998; weighted as by Mosberger): one that leaves
/// takes only its own keys with it.
fn rendezvous(candidates: &[Candidate], key: u64) -> Option<usize> {
    let score = |candidate: &Candidate| {
        let unit = (mix(candidate.id ^ key.rotate_left(32)) >> 11) as f64 / (1_u64 << 53) as f64;
        -(candidate.weight as f64) / unit.max(f64::MIN_POSITIVE).ln()
    };
    let best = candidates.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
    best.map(|candidate| candidate.index)
}

/// Hashes bytes alike on every gateway: FNV-1a of 64 bits (RFC 9923), mixed.
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The last steps of SplitMix64 (Steele, Lea and Flood, 2014), by which every bit depends on all.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HashKey;

    fn candidates(weights: &[u64]) -> Vec<Candidate> {
        let candidate = |(index, &weight): (usize, &u64)| {
            let id = hash(format!("10.0.0.{index}:80").as_bytes());
            Candidate { index, weight, load: 0, id }
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn shares(balance: &Balance, candidates: &[Candidate], rounds: u64) -> Vec<f64> {
        let mut balancer = Balancer::new(7);
        let mut counts = vec![0.0; 1 + candidates.iter().map(|candidate| candidate.index).max().unwrap()];
        for round in 0..rounds {
            let key = hash(&round.to_le_bytes());
            counts[balancer.choose(balance, candidates, key).unwrap()] += 1.0 / rounds as f64;
        }
        counts
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let candidates = candidates(&[5, 1, 2]);
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Hash(HashKey::User)] {
            let shares = shares(&balance, &candidates, 80_000);
            for (share, expected) in shares.iter().zip([0.625, 0.125, 0.25]) {
                assert!((share - expected).abs() < 0.01, "{balance:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn round_robin_spreads_the_turns_of_a_heavy_server() {
        let candidates = candidates(&[5, 1, 1]);
        let mut balancer = Balancer::new(1);
        let order: Vec<_> =
            (0..7).filter_map(|_| balancer.choose(&Balance::RoundRobin, &candidates, 0)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn a_busy_server_gets_fewer_requests() {
        let mut candidates = candidates(&[1, 1, 1, 1]);
        candidates[2].load = 50;
        let shares = shares(&Balance::LeastRequests, &candidates, 10_000);
        assert!(shares[2] == 0.0, "{shares:?}");
    }

    #[test]
    fn a_server_that_leaves_takes_its_own_keys_with_it_and_no_others() {
        let all = candidates(&[1; 10]);
        let balance = Balance::Hash(HashKey::Address);
        let mut balancer = Balancer::new(1);
        for round in 0_u64..10_000 {
            let key = hash(&round.to_le_bytes());
            let before = balancer.choose(&balance, &all, key).unwrap();
            let left: Vec<_> = all.iter().copied().filter(|candidate| candidate.index != 3).collect();
            let after = balancer.choose(&balance, &left, key).unwrap();
            assert!(before == 3 || before == after);
        }
    }
}
