//! The ids of requests, and the traces that they begin.
//!
//! Both are written by the block, so that neither costs an allocation of its own. The id of a request is that of the trace that it begins:
//! half of it is drawn once for each worker, and the other half is a count, mixed so that samplers find it random and nobody can tell the
//! next one.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

use crate::types::{
    OsRandom, Random,
    trace_context::{LENGTH, TraceContext},
};

/// Ids in a block.
const BLOCK: u64 = 64;

/// Which requests are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampling {
    /// Nothing is exported from here. Whether a request is traced is left to those who come after, whose samplers usually go by the
    /// parent: it says that it may have been recorded.
    Undecided,
    /// A request whose draw is below this.
    Below(u64),
}

impl Sampling {
    /// Samples a share of the requests, from 0 to 1.
    pub(super) fn share(share: f64) -> Self {
        // Saturates.
        Self::Below((share * 2f64.powi(64)) as u64)
    }
}

/// The ids of one request.
pub(super) struct Ids {
    pub(super) request_id: HeaderValue,
    /// `traceparent`, if the request begins a trace.
    pub(super) traceparent: HeaderValue,
    /// Whether it is sampled.
    pub(super) is_sampled: bool,
}

struct Blocks {
    /// What the worker drew at its start: one half of each id, and what the count and the draws are mixed with.
    prefix: u64,
    secrets: [u64; 3],
    count: u64,
    /// For which the block was written.
    sampling: Sampling,
    block: Bytes,
}

impl Blocks {
    fn new() -> Self {
        let random = || u64::from_ne_bytes((&OsRandom as &dyn Random).bytes());
        let secrets = [random(), random(), random()];
        Self { prefix: random(), secrets, count: 0, sampling: Sampling::Undecided, block: Bytes::new() }
    }

    fn write(&mut self) {
        let mut block = Vec::with_capacity(BLOCK as usize * LENGTH);
        for count in self.count..self.count + BLOCK {
            // Different counts stay different, and do not tell the next one.
            let [first, second, third] = self.secrets;
            let number = mix(mix(count ^ first) ^ second);
            let draw = mix(number ^ third);
            let mut trace_id = [0; 16];
            trace_id[..8].copy_from_slice(&self.prefix.to_be_bytes());
            trace_id[8..].copy_from_slice(&number.to_be_bytes());
            // No span of another id, and never zero.
            let span = draw.rotate_left(32) ^ self.prefix | 1;
            let is_sampled = match self.sampling {
                Sampling::Undecided => true,
                Sampling::Below(most) => draw < most,
            };
            let context = TraceContext { trace_id, parent_id: span.to_be_bytes(), is_sampled };
            block.extend_from_slice(&context.text());
        }
        self.count += BLOCK;
        self.block = block.into();
    }

    fn next(&mut self) -> Ids {
        if self.block.is_empty() {
            self.write();
        }
        let text = self.block.split_to(LENGTH);
        let is_sampled = matches!(self.sampling, Sampling::Below(_)) && text.last() == Some(&b'1');
        let id = text.slice(3..35);
        // SAFETY: digits and hyphens are visible ASCII.
        let (request_id, traceparent) = unsafe {
            (HeaderValue::from_maybe_shared_unchecked(id), HeaderValue::from_maybe_shared_unchecked(text))
        };
        Ids { request_id, traceparent, is_sampled }
    }
}

/// Mixes a number so that each bit depends on all of its bits; different numbers stay different (SplitMix64's finalizer, from Steele,
/// Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

thread_local! {
    static BLOCKS: RefCell<Blocks> = RefCell::new(Blocks::new());
}

/// Returns the ids of a request that is sampled, or not, as `sampling` says.
pub(super) fn next(sampling: Sampling) -> Ids {
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.sampling != sampling {
            blocks.sampling = sampling;
            blocks.block.clear();
        }
        blocks.next()
    })
}

/// Returns the id of what has not become a request.
pub(super) fn request_id() -> HeaderValue {
    BLOCKS.with_borrow_mut(|blocks| blocks.next().request_id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_the_share_of_requests_is_sampled_that_was_asked_for() {
        let mut seen = HashSet::new();
        for (share, range) in [(0.0, 0..=0), (0.1, 850..=1_150), (1.0, 10_000..=10_000)] {
            let mut sampled = 0;
            for _ in 0..10_000 {
                let ids = next(Sampling::share(share));
                let context = TraceContext::parse(ids.traceparent.as_bytes()).unwrap();
                assert_eq!(context.is_sampled, ids.is_sampled);
                assert_eq!(&ids.traceparent.as_bytes()[3..35], ids.request_id.as_bytes());
                assert!(seen.insert(ids.request_id));
                sampled += usize::from(ids.is_sampled);
            }
            assert!(range.contains(&sampled), "{share}: {sampled}");
        }
        let ids = next(Sampling::Undecided);
        assert!(!ids.is_sampled && TraceContext::parse(ids.traceparent.as_bytes()).unwrap().is_sampled);
    }
}
