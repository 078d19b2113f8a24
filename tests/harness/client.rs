//! A client that sends exactly the bytes it is given.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use super::{
    http2::Http2,
    tls::{TlsStream, shake_hands},
};

/// A response as it stood on the wire.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The only header of that name.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let first = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `message` of a problem or a response.
    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Connects; neither reading nor writing takes for ever.
#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("the gateway listens");
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// What a connection speaks below HTTP.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    Http2(Box<Http2>),
}

/// One connection.
pub struct Client {
    socket: Socket,
    read: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self { socket: Socket::Plain(connect(address)), read: Vec::new() }
    }

    /// Connects by TLS to a server that is to be `name`.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Self {
        Self::try_connect_tls(address, name, config).expect("a handshake")
    }

    /// The same, where the handshake may fail.
    pub fn try_connect_tls(
        address: SocketAddr,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let stream = shake_hands(connect(address), name, config)?;
        Ok(Self { socket: Socket::Tls(Box::new(stream)), read: Vec::new() })
    }

    /// The same, after a few bytes in the clear.
    #[track_caller]
    pub fn connect_tls_after(
        address: SocketAddr,
        preamble: &[u8],
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> Self {
        let mut socket = connect(address);
        socket.write_all(preamble).unwrap();
        let stream = shake_hands(socket, name, config).expect("a handshake");
        Self { socket: Socket::Tls(Box::new(stream)), read: Vec::new() }
    }

    /// Connects by HTTP/2, on TLS to a server of a name if one is given.
    #[track_caller]
    pub fn connect_http2(address: SocketAddr, tls: Option<(&str, &Arc<ClientConfig>)>) -> Self {
        Self { socket: Socket::Http2(Box::new(Http2::connect(address, tls))), read: Vec::new() }
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.socket, Socket::Http2(_))
    }

    /// Of a connection by TLS.
    pub fn tls(&self) -> &rustls::ClientConnection {
        match &self.socket {
            Socket::Tls(stream) => &stream.conn,
            Socket::Plain(_) | Socket::Http2(_) => panic!("no TLS"),
        }
    }

    /// Sends bytes; a peer that has closed already is for the reading to find out.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = match &mut self.socket {
            Socket::Plain(socket) => socket.write_all(bytes.as_ref()),
            Socket::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
            Socket::Http2(connection) => {
                connection.send(bytes.as_ref());
                Ok(())
            }
        };
        self
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        loop {
            let read = match &mut self.socket {
                Socket::Plain(socket) => socket.read(&mut chunk),
                Socket::Tls(stream) => stream.read(&mut chunk),
                Socket::Http2(_) => panic!("HTTP/2 has no bytes to be read"),
            };
            match read {
                // A socket with a timeout is interrupted when the whole machine was stopped for a while.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(length) => {
                    self.read.extend_from_slice(&chunk[..length]);
                    return Ok(length);
                }
            }
        }
    }

    /// Reads one response to a request that was not HEAD; `None` when the connection ends instead.
    #[track_caller]
    pub fn try_response(&mut self) -> Option<Response> {
        self.read_response(false)
    }

    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response().expect("a response")
    }

    /// Reads one response to a HEAD request.
    #[track_caller]
    pub fn response_to_head(&mut self) -> Response {
        self.read_response(true).expect("a response")
    }

    #[track_caller]
    fn read_response(&mut self, head_only: bool) -> Option<Response> {
        if let Socket::Http2(connection) = &mut self.socket {
            return connection.response();
        }
        loop {
            let (status, headers) = self.read_head()?;
            if status == 100 || status == 103 {
                continue;
            }
            let find = |name: &str| {
                headers
                    .iter()
                    .find(|(own, _): &&(String, String)| own.eq_ignore_ascii_case(name))
                    .map(|(_, v)| v.clone())
            };
            let body = if head_only || status == 204 || status == 304 {
                Vec::new()
            } else if find("transfer-encoding").is_some() {
                self.read_chunks()
            } else if let Some(length) = find("content-length") {
                self.read_exact(length.parse().expect("a length"))
            } else {
                while self.fill().expect("the end of the body") > 0 {}
                std::mem::take(&mut self.read)
            };
            return Some(Response { status, headers, body });
        }
    }

    /// Reads the head of a response alone: its status and headers.
    #[track_caller]
    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        self.read_head().expect("a response")
    }

    /// Says that nothing more is sent.
    pub fn end(&mut self) {
        let socket = match &mut self.socket {
            Socket::Plain(socket) => socket,
            Socket::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.conn.write_tls(&mut stream.sock);
                &mut stream.sock
            }
            Socket::Http2(_) => panic!("HTTP/2 ends by streams"),
        };
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }

    /// Everything that still arrives until the other side closes or breaks off, whatever it was in.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut last = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(Instant::now() < end, "it goes on and on");
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.read),
                Ok(_) if self.read.len() > 1 << 20 => last = std::mem::take(&mut self.read),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return std::mem::take(&mut self.read);
                }
                Err(error) => panic!("not closed: {error}, after {} bytes", last.len() + self.read.len()),
            }
        }
    }

    /// The same, for a request that may have been refused instead.
    pub fn until_closed_or_refused(&mut self) {
        if let Some((status, _)) = self.read_head()
            && status != 401
        {
            self.until_closed();
        }
    }

    fn read_head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match self.fill() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => {
                    panic!("no response: {error}; so far {:?}", String::from_utf8_lossy(&self.read))
                }
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Some((status, lines.filter_map(header).collect()))
    }

    fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.fill().expect("the body") > 0, "the body was cut off");
        }
        self.read.drain(..length).collect()
    }

    fn read_line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 2);
                return line;
            }
            assert!(self.fill().expect("a chunk") > 0, "the body was cut off");
        }
    }

    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.read_line(), 16).expect("a chunk's size");
            body.extend(self.read_exact(size));
            assert_eq!(self.read_line(), "");
            if size == 0 {
                return body;
            }
        }
    }

    /// Reads `length` bytes of whatever comes, without the framing.
    pub fn read_some(&mut self, length: usize) -> Vec<u8> {
        self.read_exact(length)
    }

    /// The same; none if the other side has closed.
    pub fn try_read(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            self.fill().ok().filter(|count| *count > 0)?;
        }
        Some(self.read.drain(..length).collect())
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.read),
                Ok(_) => {}
                // The second is TLS that ends without saying so.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) =>
                {
                    return std::mem::take(&mut self.read);
                }
                Err(error) => panic!("not closed: {error}; so far {:?}", String::from_utf8_lossy(&self.read)),
            }
        }
    }

    /// Whether the other side closes without another byte.
    pub fn is_closed_silently(&mut self) -> bool {
        self.rest().is_empty()
    }
}
