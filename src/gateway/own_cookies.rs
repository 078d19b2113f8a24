//! The cookies that are for this gateway alone: no upstream gets one, and none sets one.

use bytes::Bytes;
use http::{HeaderValue, header};

use crate::types::{cookies::pairs, fields::Fields};

/// What the names of cookies begin with that are for this gateway alone.
const NAMES: [&[u8]; 2] = [b"__Secure-authgate", b"__Host-authgate"];

fn is_own(pair: &[u8]) -> bool {
    NAMES.iter().any(|own| pair.starts_with(own))
}

/// Returns what is left of a line of `Cookie` without this gateway's own ones, perhaps nothing; none if there is none of these.
fn stripped(line: &HeaderValue) -> Option<Vec<u8>> {
    let pairs = pairs(line.as_bytes());
    pairs.clone().find(|pair| is_own(pair))?;
    let mut kept = Vec::new();
    for pair in pairs.filter(|pair| !is_own(pair)) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(pair);
    }
    Some(kept)
}

/// Returns what is left of `Cookie` without this gateway's own ones, perhaps nothing; none if there is none of these.
pub(super) fn without(fields: &Fields) -> Option<HeaderValue> {
    let mut rest = Fields::default();
    for line in fields.get_all(&header::COOKIE) {
        rest.append(header::COOKIE, line.clone());
    }
    strip(&mut rest).then_some(())?;
    let lines: Vec<&[u8]> = rest.get_all(&header::COOKIE).map(HeaderValue::as_bytes).collect();
    HeaderValue::from_bytes(&lines.join(&b"; "[..])).ok()
}

/// Takes this gateway's own cookies out of a client's. Returns whether there were some.
pub(super) fn strip(fields: &mut Fields) -> bool {
    let mut has_own = false;
    fields.rewrite(&header::COOKIE, |line| match stripped(line) {
        None => Some(line.clone()),
        Some(kept) => {
            has_own = true;
            HeaderValue::from_maybe_shared(Bytes::from(kept)).ok().filter(|kept| !kept.is_empty())
        }
    });
    has_own
}

/// Takes cookies out of a response that only this gateway may set.
pub(super) fn unset(fields: &mut Fields) {
    fields.rewrite(&header::SET_COOKIE, |value| {
        (!is_own(value.as_bytes().trim_ascii_start())).then(|| value.clone())
    });
}
