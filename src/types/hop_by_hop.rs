//! Headers that belong to one connection (RFC 9110, section 7.6.1).

use http::{HeaderName, HeaderValue, header};

use super::fields::Fields;

macro_rules! names {
    ($($name:literal),*) => {
        /// Their names. What concerns one connection without being named here is named by `Connection`.
        pub const HOP_BY_HOP: &[&str] = &[$($name),*];

        /// Whether a header, in lower case, is one of them.
        pub fn is_hop_by_hop(name: &str) -> bool {
            matches!(name, $($name)|*)
        }
    };
}

names!(
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade"
);

/// The options of `Connection`, in no case of their own.
pub fn options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let lines = fields.get_all(&header::CONNECTION);
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// Whether `Connection` names this option.
pub fn names_option(fields: &Fields, option: &str) -> bool {
    options(fields).any(|named| named.eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether a head names this protocol in `Upgrade`, and no other, and `upgrade` in `Connection` (RFC 9110,
/// section 7.8).
pub fn names_upgrade(fields: &Fields, protocol: &HeaderValue) -> bool {
    let mut values = fields.get_all(&header::UPGRADE);
    let same = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    same && values.next().is_none() && names_option(fields, "upgrade")
}

/// The headers that `Connection` nominates, but for those that a peer may not take away.
pub fn nominated(fields: &Fields) -> Vec<HeaderName> {
    const KEPT: &[HeaderName] =
        &[header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE];
    // Written here as much as by clients.
    const OF_TRACES: &[&str] = &["traceparent", "tracestate"];
    // What nearly every message says, and what nominates nothing that is not gone anyway.
    let usual = |line: &HeaderValue| line == "keep-alive" || line == "close";
    if fields.get_all(&header::CONNECTION).all(usual) {
        return Vec::new();
    }
    options(fields)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| !KEPT.contains(name) && !OF_TRACES.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_over_all_lines_and_in_any_case() {
        let mut headers = Fields::default();
        for line in ["close, X-One", "UPGRADE ,x-two,, host", "keep-alive"] {
            headers.append(header::CONNECTION, HeaderValue::from_static(line));
        }
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        assert!(names_option(&headers, "close") && names_option(&headers, "upgrade"));
        assert!(!names_option(&headers, "x"));
        let nominated = nominated(&headers);
        for name in ["x-one", "x-two", "upgrade"] {
            assert!(nominated.iter().any(|nominated| nominated == name), "{name}");
        }
        assert!(!nominated.contains(&header::HOST));
        let websocket = HeaderValue::from_static("websocket");
        assert!(names_upgrade(&headers, &websocket));
        headers.append(header::UPGRADE, HeaderValue::from_static("h2c"));
        assert!(!names_upgrade(&headers, &websocket));
    }
}
