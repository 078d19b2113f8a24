//! Requests to the authority, as the library of the protocol asks for them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient as AcmeClient};

use crate::{
    config::HttpUrl,
    http_client::{HttpClient, HttpVersion, ResponseBounds},
};

const BOUNDS: ResponseBounds = ResponseBounds { body: 1 << 20, timeout: Duration::from_secs(20) };

/// Sends what the library asks for.
#[derive(Clone)]
pub(super) struct Client(pub(super) Arc<HttpClient>);

impl AcmeClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            // By https, or on this machine, wherever the directory leads.
            let url = HttpUrl::parse(&head.uri.to_string()).map_err(|legal| Error::Other(legal.into()))?;
            let request = Request::from_parts(head, Full::new(body));
            let response = client.send(&url, HttpVersion::Http1, request, BOUNDS).await;
            let response = response.map_err(|error| Error::Other(Box::new(error)))?;
            Ok(response.map(|body| Full::new(body.to_bytes())).into())
        })
    }
}
