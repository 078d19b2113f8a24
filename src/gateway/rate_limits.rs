//! The rate limits of a route (RFC 6585, section 4; draft-ietf-httpapi-ratelimit-headers-10).

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use crate::{
    config::{self, RateKey},
    limit::{Left, Prefix, Rate, Rates},
    token::Principal,
    types::fields::Fields,
};

pub(super) static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The most limits of a route, which the config is checked for.
const MOST: usize = config::MOST_RATE_LIMITS;

/// The size of the buffer whose memory values share, in bytes.
const BLOCK: usize = 4 << 10;

/// The room that is reserved for an item of a value, in bytes.
const LONGEST_ITEM: usize = 48;

/// Whoever asks, as far as limits count by it.
pub(super) struct Asker<'a> {
    pub(super) principal: Option<&'a Principal>,
    pub(super) client: IpAddr,
    pub(super) fields: &'a Fields,
}

/// The limits of a route.
pub(super) struct RouteLimits {
    limits: Vec<Limit>,
    policy: HeaderValue,
}

/// A limit.
struct Limit {
    /// The same under every config in which route and limit are as they are.
    id: u64,
    /// How its item in the header begins: its name for clients, in quotes, and the key of what is left.
    item: String,
    rate: Rate,
    by: RateKey,
}

/// The fields by which a client learns of the limits of a route.
#[derive(Clone)]
pub(super) struct RateLimitFields<'a> {
    /// `RateLimit-Policy`.
    pub(super) policy: &'a HeaderValue,
    /// `RateLimit`: its bytes alone, which take less of a request's future than a value.
    left: Bytes,
}

impl RateLimitFields<'_> {
    /// Returns `RateLimit`.
    pub(super) fn into_left(self) -> HeaderValue {
        // SAFETY: the names of limits are part of the policy, which is a header value; the rest is visible ASCII.
        unsafe { HeaderValue::from_maybe_shared_unchecked(self.left) }
    }
}

/// What a request found.
pub(super) struct Taken<'a> {
    /// How long to wait, if it was not taken.
    pub(super) wait: Option<Duration>,
    pub(super) fields: RateLimitFields<'a>,
}

impl RouteLimits {
    /// Returns the limits of a route, if it has some.
    pub(super) fn of(route: &config::Route, rates: &Rates) -> Option<Self> {
        let mut limits: Vec<Limit> = Vec::with_capacity(route.rate_limits.len());
        let (mut policies, mut kinds) = (Vec::new(), Vec::new());
        // In whatever order they stand.
        let methods: Option<BTreeSet<_>> =
            route.methods.as_ref().map(|methods| methods.iter().map(|method| method.as_str()).collect());
        for limit in &route.rate_limits {
            let kind = limit.by.name();
            let same = kinds.iter().filter(|other| **other == kind).count();
            kinds.push(kind);
            let name = if same == 0 { format!("\"{kind}\"") } else { format!("\"{kind}-{}\"", same + 1) };
            let window = limit.per.as_secs();
            let is_whole = limit.per.subsec_nanos() == 0;
            let window = if is_whole { format!(";w={window}") } else { String::new() };
            policies.push(format!("{name};q={}{window}", limit.requests));
            limits.push(Limit {
                id: rates.key((&route.host, route.pattern.to_string(), &methods, limit)),
                item: format!("{name};r="),
                rate: Rate::new(limit.requests, limit.per, limit.burst),
                by: limit.by.clone(),
            });
        }
        // Names of headers are tokens.
        let policy = HeaderValue::try_from(policies.join(", ")).ok()?;
        (!limits.is_empty()).then_some(Self { limits, policy })
    }

    /// Takes a request, if all limits have one left.
    pub(super) fn take(&self, rates: &Rates, asker: &Asker<'_>, at: Instant) -> Taken<'_> {
        // Most routes have one: room for all that may be there would cost more than the rest.
        match self.limits.len() {
            1 => self.take_from::<1>(rates, asker, at),
            _ => self.take_from::<MOST>(rates, asker, at),
        }
    }

    /// Takes a request from up to `N` limits.
    fn take_from<const N: usize>(&self, rates: &Rates, asker: &Asker<'_>, at: Instant) -> Taken<'_> {
        let (mut keys, mut left) = ([(0, Rate::default()); N], [Left::default(); N]);
        for (key, limit) in keys.iter_mut().zip(&self.limits) {
            *key = (limit.key(rates, asker), limit.rate);
        }
        let count = rates.take(&keys[..self.limits.len().min(N)], at, &mut left);
        let left = &left[..count];
        let wait = left.last().and_then(|last| last.wait);
        Taken { wait, fields: RateLimitFields { policy: &self.policy, left: self.text_of(left) } }
    }

    /// Returns what is left, as clients read it.
    fn text_of(&self, left: &[Left]) -> Bytes {
        thread_local! {
            // Each value is split off this buffer and shares its memory, so that it needs no allocation.
            static TEXT: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(BLOCK));
        }
        TEXT.with_borrow_mut(|text| {
            text.reserve(left.len() * LONGEST_ITEM);
            for (limit, left) in self.limits.iter().zip(left) {
                if !text.is_empty() {
                    text.extend_from_slice(b", ");
                }
                text.extend_from_slice(limit.item.as_bytes());
                text.extend_from_slice(itoa::Buffer::new().format(left.requests).as_bytes());
                text.extend_from_slice(b";t=");
                text.extend_from_slice(itoa::Buffer::new().format(rounded_up(left.full_in)).as_bytes());
            }
            text.split().freeze()
        })
    }
}

/// Returns whole seconds.
fn rounded_up(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

impl Limit {
    fn key(&self, rates: &Rates, asker: &Asker<'_>) -> u64 {
        let address = || rates.key((self.id, Prefix::of(asker.client)));
        match &self.by {
            RateKey::User => match asker.principal {
                Some(principal) => rates.key((self.id, principal.subject)),
                None => address(),
            },
            RateKey::Address => address(),
            RateKey::Header(name) => {
                let mut lines = asker.fields.get_all(name).map(HeaderValue::as_bytes);
                match (lines.next(), lines.next()) {
                    (Some(one), None) => rates.free_key((self.id, one)),
                    // Those with several are counted together, too: one more line must not make another client.
                    (one, _) => rates.key((self.id, one.is_some())),
                }
            }
            RateKey::Route => self.id,
        }
    }
}
