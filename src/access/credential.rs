//! The credential of a request.

use http::HeaderValue;

/// The credential of a request. A token in a query or in a body is never one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// There is none.
    Absent,
    /// One bearer token (RFC 6750, section 2.1).
    Bearer(&'a [u8]),
    /// Something that is not exactly one bearer token.
    Unusable,
}

impl<'a> Credential<'a> {
    /// Reads the values of `Authorization`.
    pub fn of(values: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut values = values.into_iter();
        let Some(value) = values.next() else { return Self::Absent };
        if values.next().is_some() {
            return Self::Unusable;
        }
        let bytes = value.as_bytes();
        match bytes.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                // Which characters a token has is the verifier's to judge, once a token.
                match token.trim_ascii() {
                    [] => Self::Unusable,
                    token => Self::Bearer(token),
                }
            }
            _ => Self::Unusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> String {
        let values: Vec<_> = values.iter().copied().map(HeaderValue::from_static).collect();
        format!("{:?}", Credential::of(&values))
    }

    #[test]
    fn one_bearer_value_and_nothing_else_is_a_credential() {
        assert_eq!(of(&[]), "Absent");
        for value in ["Bearer a", "bEARER  a "] {
            assert_eq!(of(&[value]), "Bearer([97])");
        }
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
