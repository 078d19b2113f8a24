//! The credential of a request.

use http::{HeaderMap, header};

/// The credential of a request. A token in a query or in a body is never one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// There is none.
    Absent,
    /// One bearer token (RFC 6750, section 2.1).
    Bearer(&'a str),
    /// Something that is not exactly one bearer token.
    Unusable,
}

impl<'a> Credential<'a> {
    /// Reads the `Authorization` header.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Self::Absent };
        if values.next().is_some() {
            return Self::Unusable;
        }
        let bytes = value.as_bytes();
        match bytes.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                // Which characters a token has is the verifier's to judge, once a token.
                match std::str::from_utf8(token.trim_ascii()) {
                    Ok(text) if !text.is_empty() => Self::Bearer(text),
                    _ => Self::Unusable,
                }
            }
            _ => Self::Unusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        format!("{:?}", Credential::of(&headers))
    }

    #[test]
    fn one_bearer_value_and_nothing_else_is_a_credential() {
        assert_eq!(of(&[]), "Absent");
        assert_eq!(of(&["Bearer a.b.c"]), "Bearer(\"a.b.c\")");
        assert_eq!(of(&["bEARER a.b.c"]), "Bearer(\"a.b.c\")");
        for values in [
            &["Bearer a.b.c", "Bearer a.b.c"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearera.b.c"],
            &["Basic YTpi"],
            &["a.b.c"],
            &[""],
        ] {
            assert_eq!(of(values), "Unusable", "{values:?}");
        }
    }
}
