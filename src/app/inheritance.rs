//! What a process has from the one that started it: listening sockets by systemd, or all that a gateway hands over to its successor.

use std::{
    fs::File,
    io::{self, PipeWriter, Write},
    net::TcpListener,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::ListenAddress;

/// The variable by which a gateway tells its successor what it hands over.
pub(super) const VARIABLE: &str = "AUTHGATE_INHERITED";

/// What the address of an operators' socket begins with: it may be that of another listener, where the port is the system's choice.
pub(super) const OF_OPERATORS: &str = "admin=";

/// How long a predecessor may take until it accepts no more.
const UNTIL_ALONE: Duration = Duration::from_secs(5);

/// What a gateway hands over, as it stands in the variable: descriptors, which the successor has by the same numbers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedOver {
    /// The process that hands over. What another one said is not believed: descriptors of these numbers are others by now.
    pub(super) by: u32,
    /// Listening sockets, by their addresses in the config.
    pub(super) sockets: Vec<(String, RawFd)>,
    /// The lock of the embedded store.
    pub(super) lock: Option<RawFd>,
    /// Where the successor tells that it serves.
    pub(super) ready: RawFd,
}

/// Why what was handed over cannot be used.
#[derive(Debug, Error)]
pub enum InheritError {
    /// The sockets of systemd.
    #[error("the sockets of systemd: {0}")]
    Systemd(io::Error),
    /// The variable.
    #[error("{VARIABLE}: {0}")]
    Variable(String),
}

/// What a process has from the one that started it.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets, by their addresses in the config.
    sockets: Vec<(String, Arc<TcpListener>)>,
    lock: Option<File>,
    ready: Option<PipeWriter>,
}

impl Inherited {
    /// Takes over what there is. To be called once.
    ///
    /// # Errors
    /// [`InheritError`].
    pub fn take() -> Result<Self, InheritError> {
        let mut inherited = Self::default();
        let passed = sd_notify::listen_fds_with_names().map_err(InheritError::Systemd)?;
        for (fd, name) in passed {
            // SAFETY: systemd passes the descriptor to this process, and nothing else here takes it.
            let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
            inherited.sockets.push((ListenAddress::Systemd(name).to_string(), Arc::new(socket)));
        }
        let Ok(text) = std::env::var(VARIABLE) else { return Ok(inherited) };
        let error = |error: &dyn std::fmt::Display| InheritError::Variable(error.to_string());
        let handed_over: HandedOver = serde_json::from_str(&text).map_err(|found| error(&found))?;
        if handed_over.by != std::os::unix::process::parent_id() {
            // What these numbers are, only that process knew.
            return Err(error(&"the gateway that has started this process is gone"));
        }
        let own = |fd: RawFd| take(fd).map_err(|found| error(&found));
        for (address, fd) in handed_over.sockets {
            inherited.sockets.push((address, Arc::new(TcpListener::from(own(fd)?))));
        }
        inherited.lock = handed_over.lock.map(own).transpose()?.map(File::from);
        inherited.ready = Some(PipeWriter::from(own(handed_over.ready)?));
        Ok(inherited)
    }

    /// Returns the sockets for an address of the config: several where it leaves the port to the system.
    pub(super) fn sockets_for(&self, address: &str) -> impl Iterator<Item = &Arc<TcpListener>> {
        self.sockets.iter().filter(move |(known, _)| known == address).map(|(_, socket)| socket)
    }

    /// Returns the sockets of operators alone, by their addresses in the config.
    pub(super) fn of_operators(&self) -> Self {
        let own = |(address, socket): &(String, Arc<TcpListener>)| {
            Some((address.strip_prefix(OF_OPERATORS)?.to_owned(), socket.clone()))
        };
        Self { sockets: self.sockets.iter().filter_map(own).collect(), lock: None, ready: None }
    }

    /// Returns the sockets of systemd, which a config may name later.
    pub(super) fn of_systemd(&self) -> Self {
        let sockets = self.sockets.iter().filter(|(address, _)| address.starts_with(ListenAddress::SYSTEMD));
        Self { sockets: sockets.cloned().collect(), lock: None, ready: None }
    }

    /// Returns all sockets, by their addresses in the config.
    pub(super) fn sockets(&self) -> &[(String, Arc<TcpListener>)] {
        &self.sockets
    }

    /// Returns the lock of the embedded store, if that is the one at a path.
    pub(super) fn lock_of(&mut self, path: &std::path::Path) -> Option<File> {
        let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
            (one.dev(), one.ino()) == (other.dev(), other.ino())
        };
        let lock = self.lock.take()?;
        let is_it = same(&lock.metadata().ok()?, &std::fs::metadata(path).ok()?);
        is_it.then_some(lock)
    }

    /// Returns where the predecessor is told that this process serves.
    pub(super) fn ready(&mut self) -> Option<Ready> {
        self.ready.take().map(Ready)
    }
}

/// Tells the predecessor that this process serves. Dropped before, it tells that it never will.
#[derive(Debug)]
pub(super) struct Ready(PipeWriter);

impl Ready {
    /// What is told.
    pub(super) const WORD: &[u8] = b"ready";

    /// Tells it.
    ///
    /// # Errors
    /// When the predecessor is gone: it was told to end, and so was this process by that.
    pub(super) fn tell(mut self) -> io::Result<Told> {
        self.0.write_all(Self::WORD)?;
        Ok(Told(self.0))
    }
}

/// A predecessor that knows that this process serves.
#[derive(Debug)]
pub(super) struct Told(PipeWriter);

impl Told {
    /// Waits until it accepts no more: it closes the pipe then.
    pub(super) fn wait_until_alone(self) {
        let mut pipe = libc::pollfd { fd: self.0.as_raw_fd(), events: 0, revents: 0 };
        let begun = Instant::now();
        while let left = UNTIL_ALONE.saturating_sub(begun.elapsed())
            && !left.is_zero()
        {
            // SAFETY: the call is given one descriptor, which is open.
            match unsafe { libc::poll(&raw mut pipe, 1, left.as_millis() as libc::c_int) } {
                // A signal; or a fraction of a millisecond is left.
                ..=0 => {}
                _ => return,
            }
        }
        tracing::warn!("the process that has started this one still accepts");
    }
}

/// Takes a descriptor that was handed over, and keeps it from further processes.
fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no memory; for a number that is no descriptor it fails.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::other(format!("{fd} is no descriptor that was handed over")));
    }
    // SAFETY: it is open, and the predecessor has handed it over to nothing else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_hands_over_is_understood() {
        // One that knows of more, and one that knows of no lock.
        for text in [
            r#"{"by": 1, "sockets": [["127.0.0.1:80", 3]], "lock": 4, "ready": 5, "later": {"a": 1}}"#,
            r#"{"by": 1, "sockets": [["127.0.0.1:80", 3]], "ready": 5}"#,
        ] {
            let handed_over: HandedOver = serde_json::from_str(text).unwrap();
            assert_eq!(handed_over.sockets, [("127.0.0.1:80".to_owned(), 3)]);
            assert_eq!((handed_over.by, handed_over.ready), (1, 5));
        }
    }
}
