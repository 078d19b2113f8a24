//! A connected socket, to a client or to an upstream, and what lies between it and HTTP.

mod tls;
pub mod traffic;
mod unsent;

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{BufMut, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;
use tokio_util::io::poll_read_buf;

pub use traffic::Traffic;
pub use unsent::Unsent;

/// Up to so many bytes that lie in several places are copied into one before they are sent: `send` of one buffer costs the
/// kernel less than `writev` of two, and a response's head and body are seldom larger.
const GATHERED: usize = 16 << 10;

/// A connected stream of bytes. What is written may be buffered until it is flushed.
#[derive(Debug)]
pub enum Stream {
    /// TCP and nothing else.
    Plain(TcpStream),
    /// A socket of this machine.
    Unix(UnixStream),
    /// TLS on TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl Stream {
    /// The address of the other end.
    ///
    /// # Errors
    /// When the other end has gone, or has no address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().map_or_else(|| Err(io::ErrorKind::Unsupported.into()), TcpStream::peer_addr)
    }

    /// Returns its socket, if that is one of TCP.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    /// Returns how many bytes that were written the other end has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        let Some(socket) = self.tcp() else { return 0 };
        let mut bytes: libc::c_int = 0;
        // SAFETY: the socket is open, and the call writes a number to where `bytes` lies.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
        if result == 0 { usize::try_from(bytes).unwrap_or_default() } else { 0 }
    }

    /// Lets the kernel take no more from the other end than it has to, for one who is not listened to any more.
    pub fn narrows(&self) {
        if let Some(socket) = self.tcp() {
            // What fails here costs memory of the kernel alone.
            let _ = SockRef::from(socket).set_recv_buffer_size(1);
        }
    }

    /// Lets the kernel say that there is something to read once that is so many bytes, or the end. Whoever makes it fewer is told at once
    /// if they are there.
    pub fn is_readable_from(&self, bytes: u16) {
        let Some(socket) = self.tcp() else { return };
        let bytes = libc::c_int::from(bytes);
        // SAFETY: the socket is open, and the call reads a number from where `bytes` lies. What fails here costs time alone.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }

    /// Whether what is written may lie before the socket until it is flushed.
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Says that the stream ends, where that is said in words and they can be written at once. For a stream on which nothing
    /// is under way: of any other the end is to look like the accident that it is.
    pub fn says_end(&mut self) {
        if let Self::Tls(stream) = self {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(stream).poll_shutdown(&mut cx);
        }
    }

    /// Ready when there is something to read, be it the end. The last task that polled this, or read, is woken.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
            Self::Tls(stream) => tls::poll_read_ready(stream, cx),
        }
    }

    /// Whether nothing has come, not even the end. It costs no system call unless the socket was found readable.
    pub fn is_quiet(&mut self) -> bool {
        let read = match self {
            Self::Plain(socket) => socket.try_read(&mut [0]),
            Self::Unix(socket) => socket.try_read(&mut [0]),
            // Records may come that carry nothing.
            Self::Tls(stream) => {
                let mut cx = Context::from_waker(Waker::noop());
                return Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending();
            }
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the other end is known to send no more; nothing of a message is read.
    pub fn has_ended(&mut self) -> bool {
        self.poll_end(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Ready with an error once the other end sends no more; nothing of a message is read.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Self::Tls(stream) = self {
            return tls::poll_end(stream, cx);
        }
        if self.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let peeked = match self {
            Self::Tls(_) => return Poll::Pending,
            Self::Plain(socket) => socket.poll_peek(cx, &mut ReadBuf::new(&mut [0])),
            Self::Unix(socket) => poll_peek(socket, cx),
        };
        match peeked {
            Poll::Ready(Ok(0)) => Poll::Ready(io::ErrorKind::ConnectionAborted.into()),
            Poll::Ready(Err(error)) => Poll::Ready(error),
            // The next request is there already, or it was a false alarm.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

fn poll_peek(socket: &UnixStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        let peek = || SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]);
        match socket.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            peeked => return Poll::Ready(peeked),
        }
    }
}

/// The most bytes of a head or a small body that are read at once.
pub const SMALL_READ: usize = 4 << 10;

/// The most bytes of a large body that are read at once.
pub const LARGE_READ: usize = 64 << 10;

impl Stream {
    /// Reads up to about `wanted` bytes, within [`SMALL_READ`] and [`LARGE_READ`], and appends them to `received`. Returns
    /// their number.
    ///
    /// A connection that waits keeps no buffer: a small read goes to the stack, which lies in the processor's cache, and what
    /// has come is kept by its size. A large one is allocated once there is something to read.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut BytesMut,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        if wanted > SMALL_READ {
            ready!(self.poll_read_ready(cx))?;
            let wanted = wanted.min(LARGE_READ);
            received.reserve(wanted);
            return poll_read_buf(Pin::new(self), cx, &mut received.limit(wanted));
        }
        let mut space = [MaybeUninit::uninit(); SMALL_READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self).poll_read(cx, &mut read))?;
        received.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().map(|slice| slice.len()).sum::<usize>() <= GATHERED {
            let mut space = [MaybeUninit::uninit(); GATHERED];
            let mut gathered = ReadBuf::uninit(&mut space);
            slices.iter().for_each(|slice| gathered.put_slice(slice));
            return self.as_mut().poll_write(cx, gathered.filled());
        }
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
