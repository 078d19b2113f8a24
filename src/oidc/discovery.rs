//! Where the keys of an issuer are (OpenID Connect Discovery 1.0, section 4).

use serde::Deserialize;

use crate::config::HttpUrl;

/// The path of the document below the issuer.
pub(super) const PATH: &str = "/.well-known/openid-configuration";

/// The document, as far as it is read.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// Returns where the keys are by the OpenID configuration of `issuer`.
///
/// # Errors
/// What is wrong with it. One that names another issuer is not this one's.
pub(super) fn key_address(document: &[u8], issuer: &str) -> Result<HttpUrl, String> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|_| "its OpenID configuration has no `issuer` and `jwks_uri`".to_owned())?;
    if document.issuer != issuer {
        return Err(format!(
            "its OpenID configuration is of the issuer `{}`; set `issuer` to exactly that if it is the right one",
            document.issuer.escape_debug()
        ));
    }
    HttpUrl::parse(&document.jwks_uri)
        .map_err(|legal| format!("`jwks_uri` of its OpenID configuration: {legal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_issuer_is_refused() {
        let read = |text: &str| key_address(text.as_bytes(), "https://a.example.com");
        let document =
            |issuer: &str, jwks: &str| format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{jwks}", "x": 1}}"#);
        let keys = "https://b.example.com/keys";
        assert_eq!(read(&document("https://a.example.com", keys)).unwrap().host, "b.example.com");
        assert!(read(&document("https://a.example.com/", keys)).is_err());
        assert!(read(&document("https://a.example.com", "http://b.example.com/keys")).is_err());
        assert!(read("{}").is_err() && read("").is_err());
    }
}
