//! TLS on a socket: what it has taken from there, and what of that is for the one who reads.
//!
//! A record may carry no byte of a message: tickets come to a client at rest (RFC 8446, section 4.6.1), and the end is told
//! by one (section 6.1). So a readable socket says less than on plain TCP.

use std::{
    io::{self, Read},
    task::{Context, Poll, ready},
};

use rustls::{ConnectionCommon, SideData};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A socket as rustls reads from it.
struct Records<'a>(&'a TcpStream);

impl Read for Records<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

/// Ready when there is something to read, or the socket may have something. The last task that polled this is woken.
pub(super) fn poll_read_ready(
    stream: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let holds = match stream {
        TlsStream::Server(stream) => holds(stream.get_mut().1),
        TlsStream::Client(stream) => holds(stream.get_mut().1),
    };
    if holds { Poll::Ready(Ok(())) } else { stream.get_ref().0.poll_read_ready(cx) }
}

/// Ready with an error once the other end sends no more. Records are taken up to the first that carries a part of a message.
pub(super) fn poll_end(stream: &mut TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<io::Error> {
    match stream {
        TlsStream::Server(stream) => {
            let (socket, connection) = stream.get_mut();
            poll_end_of(socket, connection, cx)
        }
        TlsStream::Client(stream) => {
            let (socket, connection) = stream.get_mut();
            poll_end_of(socket, connection, cx)
        }
    }
}

/// Whether decrypted bytes, the end, or an error wait to be read.
fn holds<D: SideData>(connection: &mut ConnectionCommon<D>) -> bool {
    connection
        .process_new_packets()
        .map_or(true, |state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed())
}

fn poll_end_of<D: SideData>(
    socket: &TcpStream,
    connection: &mut ConnectionCommon<D>,
    cx: &mut Context<'_>,
) -> Poll<io::Error> {
    loop {
        match connection.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() > 0 => return Poll::Pending,
            Ok(state) if state.peer_has_closed() => {
                return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
            }
            Ok(_) => {}
            Err(error) => return Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        if let Err(error) = ready!(socket.poll_read_ready(cx)) {
            return Poll::Ready(error);
        }
        match connection.read_tls(&mut Records(socket)) {
            Ok(0) => return Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => {}
            // It was a false alarm; the socket says when there is more.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(error),
        }
    }
}
