//! A client of HTTP/2 that is told what to send as if it spoke HTTP/1.1, so that one test serves both.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderName, HeaderValue, Method, Request};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::Response;

/// How long a response is waited for.
const LONGEST: Duration = Duration::from_secs(20);

/// A connection.
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    scheme: &'static str,
    /// What was sent and is no whole request yet.
    text: Vec<u8>,
    responses: VecDeque<ResponseFuture>,
}

impl Http2 {
    /// Connects, by TLS to a server of a name if a name is given.
    #[track_caller]
    pub fn connect(address: SocketAddr, tls: Option<(&str, &Arc<ClientConfig>)>) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = tls.map(|(name, config)| {
            let mut config = ClientConfig::clone(config);
            config.alpn_protocols = vec![b"h2".to_vec()];
            (ServerName::try_from(name.to_owned()).unwrap(), Arc::new(config))
        });
        let sender = runtime.block_on(async move {
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            socket.set_nodelay(true).unwrap();
            match tls {
                None => {
                    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
                    tokio::spawn(connection);
                    sender
                }
                Some((name, config)) => {
                    let stream =
                        tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap();
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
                    tokio::spawn(connection);
                    sender
                }
            }
        });
        Self { runtime, sender, scheme, text: Vec::new(), responses: VecDeque::new() }
    }

    /// Sends the requests that are whole.
    pub fn send(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        while let Some((request, body, length)) = self.parse() {
            self.text.drain(..length);
            let sender = &mut self.sender;
            let sent = self.runtime.block_on(async {
                timeout(LONGEST, std::future::poll_fn(|cx| sender.poll_ready(cx))).await.ok()?.ok()?;
                sender.send_request(request, body.is_empty()).ok()
            });
            let Some((response, mut stream)) = sent else { return };
            if !body.is_empty() {
                // The library sends it as the server has room.
                let _ = stream.send_data(body.into(), true);
            }
            self.responses.push_back(response);
        }
    }

    /// The first whole request of the text, its body, and the length of both.
    fn parse(&self) -> Option<(Request<()>, Vec<u8>, usize)> {
        let end = self.text.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.text[..end - 4]).into_owned();
        let mut lines = head.split("\r\n");
        let mut start = lines.next()?.split(' ');
        let (method, target) = (start.next()?, start.next()?);
        let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
        let value = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
        };
        let (body, length) = if value("transfer-encoding").is_some() {
            read_chunks(&self.text[end..])?
        } else {
            let length = value("content-length").map_or(0, |length| length.parse().unwrap());
            (self.text.get(end..end + length)?.to_vec(), length)
        };
        let mut hosts = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = hosts.next().map_or("", |(_, value)| value.trim());
        let uri = format!("{}://{authority}{target}", self.scheme);
        let uri = uri.parse::<http::Uri>().unwrap_or_else(|error| panic!("{error}: {uri}"));
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = uri;
        for (name, value) in &headers {
            let left_out = ["host", "connection", "transfer-encoding", "upgrade", "keep-alive"];
            if !left_out.contains(&name.to_ascii_lowercase().as_str()) {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                let value = HeaderValue::from_bytes(value.trim().as_bytes()).unwrap();
                request.headers_mut().append(name, value);
            }
        }
        for (_, host) in hosts {
            request.headers_mut().append("host", HeaderValue::from_str(host.trim()).unwrap());
        }
        Some((request, body, end + length))
    }

    /// The next response, or none if the connection or the stream ended instead.
    pub fn response(&mut self) -> Option<Response> {
        let response = self.responses.pop_front().expect("a request was sent");
        self.runtime.block_on(async {
            let response = timeout(LONGEST, response).await.expect("a response in time").ok()?;
            let (head, mut stream) = response.into_parts();
            let mut body = Vec::new();
            while let Some(data) = timeout(LONGEST, stream.data()).await.expect("a body in time") {
                let data = data.ok()?;
                let _ = stream.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            Some(Response { status: head.status.as_u16(), headers, body })
        })
    }
}

/// The body of chunks, and their length, if they are whole.
fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if size == 0 {
            return (at <= bytes.len()).then_some((body, at));
        }
    }
}
