//! The host of a request (RFC 9110, section 7.2).

use std::{borrow::Cow, net::Ipv6Addr};

/// The longest name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Whether `host` is a name or an address with an optional port: no userinfo, no list, no path, no empty label.
pub fn is_host(host: &str) -> bool {
    let (name, port) = match split(host) {
        Some((name, port)) if name.starts_with('[') => {
            return address(name).is_some() && is_port(port);
        }
        Some(parts) => parts,
        None => return false,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'-' | b'_' | b'~' => label += 1,
            _ if byte.is_ascii_alphanumeric() => label += 1,
            _ => return false,
        }
    }
    label > 0 && name.len() <= MAX_NAME && is_port(port)
}

/// The name that routes are compared with, of what [`is_host`]: in lower case, without port and final dot, an address in its
/// one form (RFC 5952).
pub fn name_of(host: &str) -> Cow<'_, str> {
    let name = split(host).map_or(host, |(name, _)| name);
    if let Some(address) = address(name) {
        return Cow::Owned(format!("[{address}]"));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Name and port, with its colon. None for brackets without an end.
fn split(host: &str) -> Option<(&str, &str)> {
    let from = if host.starts_with('[') { host.find(']')? } else { 0 };
    let end = host.as_bytes()[from..]
        .iter()
        .position(|byte| *byte == b':')
        .map_or(host.len(), |colon| from + colon);
    Some(host.split_at(end))
}

fn address(name: &str) -> Option<Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn is_port(port: &str) -> bool {
    let digits = port.strip_prefix(':').unwrap_or(port);
    digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_a_port_and_nothing_else() {
        let long = format!("{}com", "a.".repeat(126));
        for host in ["a.Example.com", "a:8080", "a.:80", "127.0.0.1:1", "[::1]:80", "[::1]", "a:", "a_b-c~d"]
        {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "", ":80", "u@a", "a b", "a,b", "a/b", "a:b", "a:1:2", "[::1", "[x]", "a?b", "a\\b", "a:999999",
            ".", ".a", "a..", "a..b", "[::1]a", "é", &long,
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn routes_are_compared_with_one_form_of_a_host() {
        for (host, name) in [
            ("a.Example.com", "a.example.com"),
            ("a:8080", "a"),
            ("a.:80", "a"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ] {
            assert_eq!(name_of(host), name);
        }
    }
}
