//! A probe of a server. It carries no identity and no token.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use http_body::{Body, Frame};
use tokio::sync::Semaphore;

use super::{Connection, Head, RequestHead, endpoint::Address, exchange::Exchange, multiplexed::Multiplexed};
use crate::{
    config::Probe,
    tls::{ClientTls, Offer},
    types::{fields::Fields, framing::HeadLimits},
};

/// The bounds of a response's head.
const LIMITS: HeadLimits = HeadLimits { bytes: 64 << 10, count: 100 };

const USER_AGENT: HeaderValue = HeaderValue::from_static("authgate-health");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The body of a probe.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// Asks a server whose own name is `own_host`, by TLS where that is given, and in HTTP/2 if it is known to speak that.
///
/// # Errors
/// Why it does not work, for the log.
pub(super) async fn probe(
    address: &Address,
    tls: Option<(&ClientTls, &str)>,
    is_http2: bool,
    own_host: &str,
    probe: &Probe,
) -> Result<(), String> {
    let is_tls = tls.is_some();
    let connected = address.connect(tls, Offer::Either).await;
    let (stream, agreed) = connected.map_err(|error| error.to_string())?;
    let Probe::Get { target, host, expect } = probe else { return Ok(()) };
    // Both were checked with the config.
    let uri: Uri = target.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let host =
        HeaderValue::try_from(host.as_deref().unwrap_or(own_host)).map_err(|error| error.to_string())?;
    let slot = Arc::new(Semaphore::new(1)).acquire_owned().await.map_err(|error| error.to_string())?;
    let mut fields = Fields::default();
    fields.append(header::HOST, host);
    let head = RequestHead { method: &Method::GET, uri: &uri, fields };
    let added: [(&HeaderName, &HeaderValue); 2] =
        [(&header::USER_AGENT, &USER_AGENT), (&header::CONNECTION, &CLOSE)];
    let status = if is_http2 || agreed {
        let connection = Multiplexed::begin(stream, LIMITS, slot, Arc::default());
        let exchange = Exchange::begin(&connection, is_tls, &head, &added, Nothing);
        let mut exchange = exchange.map_err(|(broken, _)| broken.to_string())?;
        loop {
            match exchange.head().await {
                Ok(Head::Hints(_)) => {}
                Ok(Head::Final(response)) => break response.status.as_u16(),
                Err(broken) => return Err(broken.to_string()),
            }
        }
    } else {
        let mut connection = Connection::new(stream, LIMITS, slot);
        connection.begin(head, &added, Nothing);
        loop {
            match poll_fn(|cx| connection.poll_response(cx)).await {
                Ok(Head::Hints(_)) => {}
                Ok(Head::Final(response)) => break response.status.as_u16(),
                Err(broken) => return Err(broken.to_string()),
            }
        }
    };
    if expect.iter().any(|range| range.contains(&status)) { Ok(()) } else { Err(format!("status {status}")) }
}
