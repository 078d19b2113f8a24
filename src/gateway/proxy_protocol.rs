//! The PROXY protocol: a load balancer says whose connection it passes on
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Only configured peers may, and they must. What a preamble says of TLS is not believed.

use std::{io, net::SocketAddr, time::Duration};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a preamble may take, and how long it may be, in bytes.
const LONGEST: Duration = Duration::from_secs(2);
const MOST: usize = 4 << 10;

/// The longest line of version 1, in bytes (section 2.1).
const LONGEST_LINE: usize = 107;

/// Between two looks at a preamble that comes in pieces.
const PAUSE: Duration = Duration::from_millis(5);

/// How a preamble begins, in each of the two versions.
const BEGINS: [&[u8]; 2] = [v1::PROTOCOL_PREFIX.as_bytes(), v2::PROTOCOL_PREFIX];

/// Reads the preamble of a connection that `peer` has made, and which must have one.
///
/// # Errors
/// When there is none, or it is late, too long or malformed.
pub(super) async fn read(socket: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    timeout(LONGEST, read_whole(socket, peer)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn read_whole(socket: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    let mut bytes = vec![0; MOST];
    loop {
        let length = socket.peek(&mut bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&bytes[..length], peer) {
            // What is there stays there, so the socket does not tell when there is more.
            Parsed::Incomplete if length < MOST => sleep(PAUSE).await,
            Parsed::Told(address, length) => {
                socket.read_exact(&mut bytes[..length]).await?;
                return Ok(address);
            }
            Parsed::Incomplete | Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// More have to come.
    Incomplete,
    /// The client's address, and the length of the preamble.
    Told(SocketAddr, usize),
    Malformed,
}

fn parse(bytes: &[u8], peer: SocketAddr) -> Parsed {
    let [version_1, _] = BEGINS;
    // The parser finds fault with parts of a line, and takes other line ends: it is given the whole line.
    let bytes = if bytes.starts_with(version_1) {
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if bytes[..end].ends_with(b"\r") => &bytes[..=end],
            None if bytes.len() < LONGEST_LINE => return Parsed::Incomplete,
            Some(_) | None => return Parsed::Malformed,
        }
    } else {
        bytes
    };
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return Parsed::Incomplete;
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => Parsed::Told(told_by_1(&header, peer), header.header.len()),
        HeaderResult::V2(Ok(header)) => Parsed::Told(told_by_2(&header, peer), header.len()),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Parsed::Malformed,
    }
}

fn told_by_1(header: &v1::Header<'_>, peer: SocketAddr) -> SocketAddr {
    match header.addresses {
        v1::Addresses::Tcp4(addresses) => (addresses.source_address, addresses.source_port).into(),
        v1::Addresses::Tcp6(addresses) => (addresses.source_address, addresses.source_port).into(),
        v1::Addresses::Unknown => peer,
    }
}

fn told_by_2(header: &v2::Header<'_>, peer: SocketAddr) -> SocketAddr {
    match (header.command, &header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(addresses)) => {
            (addresses.source_address, addresses.source_port).into()
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(addresses)) => {
            (addresses.source_address, addresses.source_port).into()
        }
        // The balancer itself asks, or speaks for what has no address.
        _ => peer,
    }
}

/// Returns whether a connection begins with a preamble, of a peer that must not send one. Nothing is read. The first byte may take
/// `within`.
///
/// # Errors
/// When nothing comes, or what comes stays unclear.
pub(super) async fn is_there(socket: &TcpStream, within: Duration) -> io::Result<bool> {
    timeout(within, socket.readable()).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    let looking = async {
        let mut bytes = [0; 16];
        loop {
            let length = socket.peek(&mut bytes).await?;
            let begun = |begin: &&[u8]| {
                let common = length.min(begin.len());
                bytes[..common] == begin[..common]
            };
            match BEGINS.iter().find(|begin| begun(begin)) {
                Some(begin) if length < begin.len() && length > 0 => sleep(PAUSE).await,
                found => return Ok(length > 0 && found.is_some()),
            }
        }
    };
    timeout(LONGEST, looking).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
#[path = "../../fuzz/proxy_protocol.rs"]
mod fuzz;
