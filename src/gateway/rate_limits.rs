//! The rate limits of a route (RFC 6585, section 4; draft-ietf-httpapi-ratelimit-headers-10).

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};

use crate::{
    config::{self, RateKey},
    limit::{Left, Prefix, Rate, Rates},
    token::Principal,
    types::fields::{Fields, write_line},
};

pub(super) static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The most limits of a route, which the config is checked for.
const MOST: usize = config::MOST_RATE_LIMITS;

/// The room that is reserved for an item of a value, in bytes.
const LONGEST_ITEM: usize = 64;

const NANOS: u64 = 1_000_000_000;

/// What stands between a name and its value, and behind that.
const SEPARATOR: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

/// Whoever asks, as far as limits count by it.
pub(super) struct Asker<'a> {
    pub(super) principal: Option<&'a Principal>,
    pub(super) client: IpAddr,
    pub(super) fields: &'a Fields,
}

/// The limits of a route.
pub(super) struct RouteLimits {
    limits: Vec<Limit>,
    /// The line `RateLimit-Policy`, and the name of the line `RateLimit`.
    begin: Box<[u8]>,
    /// Where the value of the policy ends in it.
    policy_ends: usize,
}

/// A limit.
struct Limit {
    /// The same under every config in which route and limit are as they are.
    id: u64,
    rate: Rate,
    by: RateKey,
    /// How its item in the header begins: its name for clients, in quotes, and the key of what is left.
    item: Box<[u8]>,
}

/// What a client is told of the limits of a route.
pub(super) struct Told<'a> {
    limits: &'a RouteLimits,
    /// What is left of the first.
    first: Left,
    /// What is left of the others, up to the one that has none.
    others: Option<Box<[Left]>>,
}

/// What a request found.
pub(super) struct Taken<'a> {
    /// How long to wait, if it was not taken.
    pub(super) wait: Option<Duration>,
    pub(super) told: Told<'a>,
}

/// The lines `RateLimit-Policy` and `RateLimit` of a response, as HTTP/1.1 writes them. Whoever writes one response after another uses
/// their memory again.
#[derive(Debug, Default)]
pub(super) struct LimitLines {
    text: Vec<u8>,
    /// Where the value of the policy ends.
    policy_ends: usize,
}

impl LimitLines {
    /// Returns the lines, each with its end; empty if the route has no limits.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Returns the names and the values, if there are some.
    pub(super) fn pairs(&self) -> Option<[(&'static str, &[u8]); 2]> {
        let (policy, left) = (RATE_LIMIT_POLICY.as_str(), RATE_LIMIT.as_str());
        let value = |begin: usize, end: usize| self.text.get(begin..end);
        let policy_begins = policy.len() + SEPARATOR.len();
        let left_begins = self.policy_ends + LINE_END.len() + left.len() + SEPARATOR.len();
        let left_ends = self.text.len().checked_sub(LINE_END.len())?;
        Some([(policy, value(policy_begins, self.policy_ends)?), (left, value(left_begins, left_ends)?)])
    }

    /// Takes the lines out.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }
}

impl Told<'_> {
    /// Writes the lines, of which there are none in `lines`.
    pub(super) fn write(&self, lines: &mut LimitLines) {
        let RouteLimits { limits, begin, policy_ends } = self.limits;
        let LimitLines { text, policy_ends: ends } = lines;
        *ends = *policy_ends;
        text.reserve(begin.len() + limits.len() * LONGEST_ITEM);
        text.extend_from_slice(begin);
        let others = self.others.as_deref().unwrap_or_default();
        for (index, (limit, left)) in limits.iter().zip([&self.first].into_iter().chain(others)).enumerate() {
            if index > 0 {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(&limit.item);
            text.extend_from_slice(itoa::Buffer::new().format(left.requests).as_bytes());
            text.extend_from_slice(b";t=");
            text.extend_from_slice(itoa::Buffer::new().format(left.full_in.div_ceil(NANOS)).as_bytes());
        }
        text.extend_from_slice(LINE_END);
    }
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
                rate: Rate::new(limit.requests, limit.per, limit.burst),
                by: limit.by.clone(),
                item: format!("{name};r=").into_bytes().into(),
            });
        }
        // Names of headers are tokens, so this is a value.
        let mut begin = Vec::new();
        write_line(&mut begin, RATE_LIMIT_POLICY.as_str(), policies.join(", ").as_bytes());
        let policy_ends = begin.len() - LINE_END.len();
        begin.extend_from_slice(RATE_LIMIT.as_str().as_bytes());
        begin.extend_from_slice(SEPARATOR);
        (!limits.is_empty()).then_some(Self { limits, begin: begin.into(), policy_ends })
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
        let wait = left.last().and_then(|last| last.wait());
        let (first, others) =
            left.split_first().map_or((Left::default(), &[][..]), |(first, rest)| (*first, rest));
        let others = (!others.is_empty()).then(|| others.into());
        Taken { wait, told: Told { limits: self, first, others } }
    }
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
