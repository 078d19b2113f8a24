//! The sample backend of `authgate demo`: it answers each request with what it received.

use std::{collections::BTreeMap, convert::Infallible, io, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The greatest part of a body that is echoed, in bytes.
const MAX_BODY: usize = 10 << 20;

/// Serves on a free port of loopback until the runtime ends; returns the address.
///
/// # Errors
/// When no port is free.
pub async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    let serve =
                        http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(echo));
                    // A client that breaks off is no event for an echo.
                    tokio::spawn(async move { drop(serve.await) });
                }
                Err(error) => {
                    tracing::warn!(%error, "sample backend: accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|seen| {
                seen.push_str(", ");
                seen.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    let mut body = serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers,
        "body": body,
    })
    .to_string();
    body.push('\n');
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
