//! OpenID configurations of issuers and providers (OpenID Connect Discovery 1.0, section 4).

use serde::Deserialize;

use crate::config::HttpUrl;

/// The path of the document below the issuer.
pub(super) const PATH: &str = "/.well-known/openid-configuration";

/// The members that every issuer's document has.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl Document {
    /// Returns the address of the public key set, if the document is this issuer's.
    fn key_address(&self, issuer: &str) -> Result<HttpUrl, String> {
        if self.issuer != issuer {
            return Err(format!(
                "its OpenID configuration is of the issuer `{}`; set `issuer` to exactly that if it is the right one",
                self.issuer.escape_debug()
            ));
        }
        url("jwks_uri", &self.jwks_uri)
    }
}

fn url(name: &str, text: &str) -> Result<HttpUrl, String> {
    HttpUrl::parse(text).map_err(|legal| format!("`{name}` of its OpenID configuration: {legal}"))
}

/// Returns the address of the public key set of `issuer`.
///
/// # Errors
/// The reason why the document is not accepted.
pub(super) fn key_address(document: &[u8], issuer: &str) -> Result<HttpUrl, String> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|_| "its OpenID configuration has no `issuer` and `jwks_uri`".to_owned())?;
    document.key_address(issuer)
}

/// The metadata of a provider (OpenID Connect Discovery 1.0, section 3).
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// The address of the authorization endpoint.
    pub(super) authorization: String,
    /// The token endpoint.
    pub(super) token: HttpUrl,
    /// The userinfo endpoint.
    pub(super) userinfo: Option<HttpUrl>,
    /// The public key set.
    pub(super) keys: HttpUrl,
    /// Whether each response names its issuer (RFC 9207, section 3).
    pub(super) names_issuer: bool,
    /// Whether the secret goes into the form.
    pub(super) posts_secret: bool,
}

#[derive(Deserialize)]
struct ProviderDocument {
    #[serde(flatten)]
    keys: Document,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    /// Parses the metadata of the provider `issuer`.
    ///
    /// # Errors
    /// The reason why the document is not accepted.
    pub(super) fn parse(document: &[u8], issuer: &str) -> Result<Self, String> {
        let document: ProviderDocument = serde_json::from_slice(document)
            .map_err(|error| format!("its OpenID configuration cannot be read: {error}"))?;
        let keys = document.keys.key_address(issuer)?;
        url("authorization_endpoint", &document.authorization_endpoint)?;
        let methods = document.token_endpoint_auth_methods_supported.unwrap_or_default();
        let takes = |method: &str| methods.iter().any(|known| known == method);
        let userinfo = document.userinfo_endpoint.map(|text| url("userinfo_endpoint", &text)).transpose()?;
        Ok(Self {
            authorization: document.authorization_endpoint,
            token: url("token_endpoint", &document.token_endpoint)?,
            userinfo,
            keys,
            names_issuer: document.authorization_response_iss_parameter_supported,
            posts_secret: takes("client_secret_post") && !takes("client_secret_basic"),
        })
    }
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
