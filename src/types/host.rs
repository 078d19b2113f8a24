//! The host of a request (RFC 9110, section 7.2).

use std::{borrow::Cow, net::Ipv6Addr};

/// The longest name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Which bytes are in labels.
const OF_LABELS: [bool; 256] = {
    let mut bytes = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        bytes[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
        byte += 1;
    }
    bytes
};

/// Whether `host` is a name or an address with an optional port: no userinfo, no list, no path, no empty label.
pub fn is_host(host: &str) -> bool {
    if host.starts_with('[') {
        return split(host).is_some_and(|(name, port)| address(name).is_some() && is_port(port));
    }
    let (mut label_is_empty, mut name_length) = (true, host.len());
    for (index, byte) in host.bytes().enumerate() {
        match byte {
            _ if OF_LABELS[usize::from(byte)] => label_is_empty = false,
            b'.' if label_is_empty => return false,
            b'.' => label_is_empty = true,
            b':' => {
                name_length = index;
                break;
            }
            _ => return false,
        }
    }
    // What ends with an empty label has a final dot, or is nothing.
    let length = name_length.wrapping_sub(usize::from(label_is_empty));
    length <= MAX_NAME && is_port(&host[name_length..])
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
