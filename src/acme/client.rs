//! Requests to the authority, as the library of the protocol asks for them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient as AcmeClient};

use crate::{
    config::HttpUrl,
    http_client::{HttpClient, HttpVersion, ResponseBounds},
};

const BOUNDS: ResponseBounds = ResponseBounds { body: 1 << 20, timeout: Duration::from_secs(20) };

/// The longest wait that an authority may ask for, in seconds. The library adds it to the time, and panics where that overflows.
const LONGEST_RETRY_AFTER: u64 = 86_400;

/// Sends what the library asks for.
#[derive(Clone)]
pub(super) struct Client {
    client: Arc<HttpClient>,
    /// Whether the directory is read without TLS, on this machine.
    is_plain: bool,
}

impl Client {
    /// Creates one for a directory.
    pub(super) fn new(client: Arc<HttpClient>, directory: &HttpUrl) -> Self {
        Self { client, is_plain: !directory.is_https }
    }
}

impl AcmeClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, is_plain) = (self.client.clone(), self.is_plain);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            // By https wherever the directory leads: an authority is not to reach what else runs on this machine.
            let url = HttpUrl::parse(&head.uri.to_string()).map_err(|legal| Error::Other(legal.into()))?;
            if !url.is_https && !is_plain {
                return Err(Error::Str("a URL of the authority that begins with https"));
            }
            let request = Request::from_parts(head, Full::new(body));
            let response = client.send(&url, HttpVersion::Http1, request, BOUNDS).await;
            let mut response = response.map_err(|error| Error::Other(Box::new(error)))?;
            clamp_retry_after(response.headers_mut());
            Ok(response.map(|body| Full::new(body.to_bytes())).into())
        })
    }
}

fn clamp_retry_after(headers: &mut HeaderMap) {
    let Some(told) = headers.get(header::RETRY_AFTER) else { return };
    let is_number = told.as_bytes().iter().all(u8::is_ascii_digit);
    let seconds = told.to_str().ok().and_then(|told| told.parse().ok()).unwrap_or(u64::MAX);
    if is_number && seconds > LONGEST_RETRY_AFTER {
        headers.insert(header::RETRY_AFTER, LONGEST_RETRY_AFTER.into());
    }
}
