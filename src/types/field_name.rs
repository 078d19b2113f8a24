//! Names of field lines that are not to be made anew for each message.

use http::HeaderName;

/// Makes the table of the names that browsers and proxies often send, and that have no constant in `http`, by their lengths. One of these
/// takes no memory of its own.
macro_rules! often {
    ($($length:literal: [$($name:literal),*],)*) => {
        /// Returns the names of a length.
        fn often(length: usize) -> &'static [HeaderName] {
            match length {
                $($length => {
                    const { $(assert!($name.len() == $length);)* }
                    static NAMES: [HeaderName; [$($name),*].len()] = [$(HeaderName::from_static($name)),*];
                    &NAMES
                })*
                _ => &[],
            }
        }
    };
}

often! {
    8: ["priority"],
    9: ["x-real-ip", "sec-ch-ua", "x-api-key"],
    10: ["tracestate"],
    11: ["traceparent", "x-client-ip"],
    12: ["x-request-id"],
    14: ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user", "x-original-url"],
    15: ["x-forwarded-for", "x-forwarded-uri"],
    16: ["x-forwarded-host", "x-forwarded-port", "sec-ch-ua-mobile", "x-requested-with"],
    17: ["x-forwarded-proto", "x-original-method"],
    18: ["x-forwarded-method", "x-forwarded-server", "sec-ch-ua-platform"],
}

/// Returns one of those names, however its letters are written.
pub fn usual_name(text: &[u8]) -> Option<&'static HeaderName> {
    // Most other names have none of these first letters.
    if !matches!(text.first(), Some(b'x' | b'X' | b's' | b'S' | b't' | b'T' | b'p' | b'P')) {
        return None;
    }
    often(text.len()).iter().find(|name| name.as_str().as_bytes().eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_names_are_found_and_no_others() {
        for name in (0..64).flat_map(often) {
            assert_eq!(usual_name(name.as_str().as_bytes()), Some(name));
            assert_eq!(usual_name(name.as_str().to_ascii_uppercase().as_bytes()), Some(name));
        }
        for text in
            ["", "host", "x-one", "x forwarded for", "x-forwarded-fo:", "x-forwarded-fox", "tracepar\u{e9}nt"]
        {
            assert_eq!(usual_name(text.as_bytes()), None, "{text}");
        }
    }
}
