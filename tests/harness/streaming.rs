//! What streams and tunnels are tested with.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::{Client, Gateway, Upstream, eventually, ok};

/// The headers that ask for a WebSocket.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// `…/ws` echoes, `…/events` sends an event now and then, `…/slow` takes its time; everything else is answered at once.
pub fn streaming_upstream() -> Upstream {
    streaming(|| thread::sleep(Duration::from_millis(800)))
}

/// The same, whose `…/slow` is held back until `released`.
pub fn held_upstream(released: &Arc<AtomicBool>) -> Upstream {
    let released = released.clone();
    streaming(move || eventually("the response is released", || released.load(SeqCst).then_some(())))
}

fn streaming(wait: impl Fn() + Send + Sync + 'static) -> Upstream {
    Upstream::with(move |seen, socket| match seen.target.rsplit('/').next().unwrap_or_default() {
        "ws" => {
            let _ = socket.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            );
            let mut chunk = [0; 1_024];
            while let Ok(length) = socket.read(&mut chunk)
                && length > 0
                && socket.write_all(&chunk[..length]).is_ok()
            {}
            false
        }
        "events" => {
            let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while sent.is_ok() {
                sent = socket.write_all(b"5\r\nevent\r\n");
                thread::sleep(Duration::from_millis(30));
            }
            false
        }
        "slow" => {
            wait();
            socket.write_all(&ok("late")).is_ok()
        }
        _ => socket.write_all(&ok(&seen.target)).is_ok(),
    })
}

/// Sends a request, whose response is not read.
pub fn begin(gateway: &Gateway, path: &str, token: Option<&str>, more: &str) -> Client {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let mut client = gateway.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{bearer}{more}\r\n"));
    client
}
