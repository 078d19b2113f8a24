//! What a route changes of a request and its response: `redirect`, `rewrite`, `headers`.

use std::collections::{BTreeMap, HashSet};

use http::{HeaderName, HeaderValue, StatusCode};

use super::Check;
use crate::{
    config::{
        Action, HeaderRules, IdentityHeaders, PathRewrite, Pattern, Redirect, Rewrite, Segment, StripRule,
        raw,
    },
    types::{hop_by_hop::is_hop_by_hop, host::is_host, path},
};

/// Headers of a request that the gateway writes itself, beside those of identities.
const OURS_IN_REQUESTS: &[&str] = &[
    "content-length",
    "expect",
    "forwarded",
    "max-forwards",
    "via",
    "x-client-cert-subject",
    "x-request-id",
];
const OURS_IN_RESPONSES: &[&str] = &["content-length", "x-request-id"];

/// Which message a rule is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

impl Check<'_> {
    pub(super) fn redirect(&mut self, key: &str, raw: raw::Redirect) -> Option<Action> {
        const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
        let number = raw.status.map_or(308, |status| status.0);
        let status = STATUSES.into_iter().find(|status| u64::from(*status) == number);
        if status.is_none() {
            self.error(&format!("{key}.redirect.status"), "expected 301, 302, 303, 307 or 308");
        }
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let redirect = Redirect::parse(&raw.to, status.unwrap_or(StatusCode::PERMANENT_REDIRECT));
        redirect
            .map_err(|problem| self.error(&format!("{key}.redirect.to"), problem))
            .ok()
            .map(Action::Redirect)
    }

    pub(super) fn rewrite(&mut self, key: &str, raw: raw::Rewrite, pattern: Option<&Pattern>) -> Rewrite {
        let key = format!("{key}.rewrite");
        let host = raw.host.as_deref().and_then(|host| self.rewritten_host(&format!("{key}.host"), host));
        let by_prefix = raw.strip_prefix.is_some() || raw.add_prefix.is_some();
        if raw.path.is_some() == by_prefix && (by_prefix || raw.host.is_none()) {
            self.error(&key, "expected `strip_prefix` and `add_prefix`, or `path`, or `host`");
        }
        let path = match raw.path {
            Some(fixed) => PathRewrite::Fixed(self.plain_path(&format!("{key}.path"), fixed)),
            None if by_prefix => {
                let stripped = raw
                    .strip_prefix
                    .map_or(0, |prefix| self.stripped(&format!("{key}.strip_prefix"), &prefix, pattern));
                let added_key = format!("{key}.add_prefix");
                let added =
                    raw.add_prefix.map_or(String::new(), |prefix| self.plain_path(&added_key, prefix));
                if added.ends_with('/') {
                    self.error(&added_key, "expected a prefix without a slash at its end, such as /v2");
                }
                PathRewrite::Prefix { stripped, added }
            }
            None => PathRewrite::None,
        };
        Rewrite { path, host }
    }

    fn rewritten_host(&mut self, key: &str, text: &str) -> Option<HeaderValue> {
        if !is_host(text) {
            self.error(key, "expected a host, with a port if it needs one, such as orders.internal");
        }
        HeaderValue::from_str(text).ok()
    }

    fn plain_path(&mut self, key: &str, path: String) -> String {
        let canonical = path::canonical(&path);
        if canonical.is_err() || canonical.is_ok_and(|canonical| canonical.wire != path) {
            self.error(key, "expected a canonical path such as /v2 (encode only what must be encoded)");
        }
        path
    }

    /// The number of segments of a prefix, which every path of the route must have.
    fn stripped(&mut self, key: &str, prefix: &str, pattern: Option<&Pattern>) -> usize {
        let parsed = match Pattern::parse(prefix) {
            Ok(parsed) => parsed,
            Err(problem) => {
                self.error(key, problem);
                return 0;
            }
        };
        let segments = parsed.segments();
        let plain = !segments.is_empty()
            && !segments.contains(&Segment::Any)
            && !parsed.covers_below()
            && !parsed.has_trailing_slash();
        if !plain {
            self.error(key, "expected whole segments such as /api");
        } else if pattern.is_some_and(|pattern| !pattern.segments().starts_with(segments)) {
            self.error(key, "expected a prefix that every path of this route has");
        }
        segments.len()
    }

    pub(super) fn header_rules(
        &mut self,
        key: &str,
        raw: raw::RouteHeaders,
        identity: &IdentityHeaders,
    ) -> (HeaderRules, HeaderRules) {
        let mut rules = |side, name: &str, raw: raw::HeaderRules| {
            let key = format!("{key}.headers.{name}");
            HeaderRules {
                set: self.header_lines(&format!("{key}.set"), raw.set, identity, side),
                add: self.header_lines(&format!("{key}.add"), raw.add, identity, side),
                remove: raw
                    .remove
                    .iter()
                    .enumerate()
                    .filter_map(|(at, name)| {
                        self.header_name(&format!("{key}.remove[{at}]"), name, identity, side)
                    })
                    .collect(),
            }
        };
        (rules(Side::Request, "request", raw.request), rules(Side::Response, "response", raw.response))
    }

    fn header_lines(
        &mut self,
        key: &str,
        raw: BTreeMap<String, String>,
        identity: &IdentityHeaders,
        side: Side,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut lines = Vec::new();
        let mut known = HashSet::new();
        for (name, value) in raw {
            let key = format!("{key}.{name}");
            if !known.insert(IdentityHeaders::fold(&name)) {
                self.error(&key, "another line sets this header already, perhaps in another spelling");
            }
            let name = self.header_name(&key, &name, identity, side);
            match HeaderValue::from_str(&value) {
                Ok(value) => lines.extend(name.map(|name| (name, value))),
                Err(_) => self.error(&key, "expected a value of one line in visible ASCII"),
            }
        }
        lines
    }

    /// A header that a route may change.
    fn header_name(
        &mut self,
        key: &str,
        text: &str,
        identity: &IdentityHeaders,
        side: Side,
    ) -> Option<HeaderName> {
        let Ok(name) = HeaderName::try_from(text) else {
            self.error(key, "expected the name of a header");
            return None;
        };
        let folded = IdentityHeaders::fold(text);
        let ours = match side {
            Side::Request => OURS_IN_REQUESTS,
            Side::Response => OURS_IN_RESPONSES,
        };
        if side == Side::Request && is_identity(&folded, identity) {
            self.error(key, "this header tells who is calling: no route may change it");
        } else if side == Side::Request && folded == "host" {
            self.error(key, "expected `rewrite.host` for that");
        } else if is_hop_by_hop(&folded)
            || ours.contains(&folded.as_str())
            || (side == Side::Request && folded.starts_with("x-forwarded-") && folded != "x-forwarded-prefix")
        {
            self.error(key, "authgate writes this header itself");
        } else {
            return Some(name);
        }
        None
    }
}

/// Whether a folded name is one that carries an identity, here or under any preset, or is stripped for that reason.
fn is_identity(folded: &str, identity: &IdentityHeaders) -> bool {
    let own = identity.names();
    IdentityHeaders::RESERVED.contains(&folded)
        || own.map(HeaderName::as_str).any(|name| name == folded)
        || identity.strip.iter().any(|rule| match rule {
            StripRule::Name(name) => name == folded,
            StripRule::Prefix(prefix) => folded.starts_with(prefix.as_str()),
        })
}
