//! Short documents by HTTP, from addresses that an operator chose.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use crate::{
    config::{self, HttpUrl},
    http_client::{HttpClient, HttpError, HttpVersion, ResponseBounds},
    tls::TlsError,
    types::Secret,
};

/// For a whole fetch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest document, in bytes.
const MAX_BODY: usize = 256 << 10;

/// The largest one that another gateway tells.
const MAX_LARGE_BODY: usize = 64 << 20;

/// What a form leaves as it is (URL standard, application/x-www-form-urlencoded), but for blanks.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// Why a document could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// There was no response.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The response is none that was asked for.
    #[error("it responded with {0}")]
    Status(StatusCode),
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// Fetches documents. A response that is not 200 is an error; a redirect, too.
#[derive(Debug)]
pub struct Fetcher {
    client: HttpClient,
}

impl Fetcher {
    /// Creates a fetcher that believes the authorities of `tls`.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn new(tls: &config::UpstreamTls) -> Result<Self, (config::Source, TlsError)> {
        Ok(Self { client: HttpClient::new(tls)? })
    }

    /// Returns what tells its files from others.
    pub fn digest(&self) -> u64 {
        self.client.digest()
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &HttpUrl) -> Result<Bytes, FetchError> {
        self.fetch(MAX_BODY, url, base(Method::GET).body(Full::default())?).await
    }

    /// Fetches a document that may be large.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_large(&self, url: &HttpUrl) -> Result<Bytes, FetchError> {
        self.fetch(MAX_LARGE_BODY, url, base(Method::GET).body(Full::default())?).await
    }

    /// Fetches a document with an access token (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_as(&self, url: &HttpUrl, token: &Secret) -> Result<Bytes, FetchError> {
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(http::Error::from)?;
        bearer.set_sensitive(true);
        let request = base(Method::GET).header(header::AUTHORIZATION, bearer).body(Full::default())?;
        self.fetch(MAX_BODY, url, request).await
    }

    /// Sends a form. Returns the document that is the response.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post_form(&self, url: &HttpUrl, form: &[(&str, &str)]) -> Result<Bytes, FetchError> {
        let body = serde_urlencoded::to_string(form).unwrap_or_default();
        let request = base(Method::POST)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))?;
        self.fetch(MAX_BODY, url, request).await
    }

    /// Sends a form with the credentials of a client (RFC 6749, section 2.3.1). Returns the document that is the response.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post(
        &self,
        url: &HttpUrl,
        form: &[(&str, &str)],
        client_id: &str,
        secret: &Secret,
    ) -> Result<Bytes, FetchError> {
        let encode = |text: &str| utf8_percent_encode(text, FORM).to_string();
        let credentials = format!("{}:{}", encode(client_id), encode(secret.expose()));
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
            .map_err(http::Error::from)?;
        basic.set_sensitive(true);
        let body = serde_urlencoded::to_string(form).unwrap_or_default();
        let request = base(Method::POST)
            .header(header::AUTHORIZATION, basic)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))?;
        self.fetch(MAX_BODY, url, request).await
    }

    async fn fetch(
        &self,
        most: usize,
        url: &HttpUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, FetchError> {
        let bounds = ResponseBounds { body: most, timeout: TIMEOUT };
        let response = self.client.send(url, HttpVersion::Http1, request, bounds).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body().to_bytes()),
            status => Err(FetchError::Status(status)),
        }
    }
}

fn base(method: Method) -> http::request::Builder {
    Request::builder().method(method).header(header::ACCEPT, "application/json")
}
