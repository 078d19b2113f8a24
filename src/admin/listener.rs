//! The admin listener: health, metrics, and the way to the API.
//!
//! It listens on loopback unless the operator insists, and answers only to names that no web page can
//! have: a browser that was told another name for this address is refused.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};

use super::AdminApi;
use crate::{
    config::LogLevel,
    stream::Stream,
    tls::{ServerTls, accept},
    upstream::ServerReport,
};

/// What the listener reports on.
pub trait Status: Send + Sync {
    /// Why the gateway should get no traffic now, in fixed words.
    ///
    /// # Errors
    /// The reason.
    fn ready(&self) -> Result<(), &'static str>;

    /// The metrics in Prometheus's text format.
    fn metrics(&self) -> Vec<u8>;

    /// The servers of each upstream, by its name.
    fn upstreams(&self) -> Vec<(String, Vec<ServerReport>)>;

    /// The admin API, once everything is loaded.
    fn api(&self) -> Option<Arc<AdminApi>>;

    /// The routes as they are, for a comparison with those of a config.
    fn routes(&self) -> serde_json::Value;

    /// Reads the config again, and takes it up if all of it can be.
    fn reload(&self) -> Reload<'_>;

    /// Sets the least severe level of the log, until the config is taken up anew.
    fn set_log_level(&self, level: LogLevel);
}

/// The result of a reload: warnings about what was taken up, or the errors.
pub type Reload<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, Vec<String>>> + Send + 'a>>;

/// Probes, a scraper or two, and administrators; more would be a mistake or worse.
const MAX_CONNECTIONS: usize = 256;

/// The greatest number of concurrent calls of the admin API. It leaves room for probes.
const MAX_CALLS: usize = 64;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the runtime ends, by any address, `localhost` and the names in `hosts`. The admin API's calls run on `calls`,
/// so that probes are answered whatever those do.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    status: Arc<dyn Status>,
    calls: Handle,
    hosts: Arc<[String]>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let running = Arc::new(Semaphore::new(MAX_CALLS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin: no connection could be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (status, calls, running) = (status.clone(), calls.clone(), running.clone());
        let (hosts, tls) = (hosts.clone(), tls.clone());
        tokio::spawn(async move {
            let socket = match tls {
                None => Stream::Plain(socket),
                Some(tls) => match timeout(HEADER_TIMEOUT, accept(socket, &tls)).await {
                    Ok(Ok(secured)) => secured.stream.into(),
                    // A handshake that comes to nothing is no event.
                    _ => return,
                },
            };
            let service = service_fn(|request: Request<Incoming>| {
                let (status, calls, running) = (status.clone(), calls.clone(), running.clone());
                let hosts = hosts.clone();
                async move {
                    let response = if !is_ours(request.headers().get(header::HOST), &hosts) {
                        strange()
                    } else if ["/api/", "/config/"]
                        .iter()
                        .any(|begin| request.uri().path().starts_with(begin))
                    {
                        call(request, status, peer.ip(), &calls, running).await
                    } else {
                        probe(&request, &*status)
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service);
            // A probe that breaks off is no event.
            drop(serving.await);
            drop(place);
        });
    }
}

/// The response to a request with a foreign `Host`, which a web page could send by DNS rebinding.
fn strange() -> Response<Full<Bytes>> {
    text(StatusCode::FORBIDDEN, "the Host is no address and not in admin.hosts\n")
}

/// A call of the admin API.
async fn call(
    request: Request<Incoming>,
    status: Arc<dyn Status>,
    peer: IpAddr,
    calls: &Handle,
    running: Arc<Semaphore>,
) -> Response<Full<Bytes>> {
    let Some(api) = status.api() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "keys and revocations are not loaded\n");
    };
    let Ok(place) = running.try_acquire_owned() else {
        let mut busy = text(StatusCode::SERVICE_UNAVAILABLE, "too many calls at once\n");
        busy.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return busy;
    };
    // A task of its own: a change is not left half-way by a client that hangs up.
    let handled = calls.spawn(async move {
        let _place = place;
        api.handle(request, peer, &*status).await
    });
    let failed = |_| text(StatusCode::INTERNAL_SERVER_ERROR, "the call ended without a response\n");
    handled.await.unwrap_or_else(failed)
}

/// A probe, or the metrics.
fn probe<T>(request: &Request<T>, status: &dyn Status) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match status.ready() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, status.metrics());
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, format);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a `Host` is `localhost`, an address, or one of the names that the operator gave.
fn is_ours(host: Option<&HeaderValue>, hosts: &[String]) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    hosts.iter().map(String::as_str).chain(["localhost"]).any(|ours| name.eq_ignore_ascii_case(ours))
        || bare.parse::<std::net::IpAddr>().is_ok()
}
