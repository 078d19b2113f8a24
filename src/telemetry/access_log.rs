//! The access log: a line for each request, off the request's path.
//!
//! A line is formatted once, into a buffer of its worker. A thread of its own writes full buffers, and those that
//! [`AccessLog::flush`] hands over, to standard error. Nobody waits for it: lines that it cannot take are lost, and
//! counted.

use std::{
    cell::RefCell,
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::access_line::{AccessEntry, write_json, write_text};

/// The size of a worker's batch, in bytes. Each handing over wakes the thread that writes, which costs
/// as much as some dozen lines.
const BATCH: usize = 256 << 10;

/// Room for the line that makes a batch full, in bytes.
const USUAL_LINE: usize = 4 << 10;

/// Batches that may wait for a slow reader of the log: small ones, since each worker hands over twice a second.
const MAX_WAITING: usize = 1_024;

/// What may wait in all, in bytes.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Buffers that are kept to be filled again: memory that was touched before costs the kernel nothing.
const MAX_SPARE: usize = 4;

/// How long to wait for a reader of the log at the end.
const PATIENCE: Duration = Duration::from_secs(1);

enum Message {
    Lines(Vec<u8>),
    End,
}

/// Where lines go. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// What waits, in bytes.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    json: bool,
}

/// The thread that writes.
pub(super) struct Writer {
    log: AccessLog,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    /// Where the lines go when the thread ends.
    log: Option<AccessLog>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(log) = self.log.take().filter(|_| !self.bytes.is_empty()) {
            log.hand_over(self);
        }
    }
}

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::default();
}

impl Writer {
    /// Starts the thread; `sink` takes whole lines.
    pub(super) fn start(json: bool, mut sink: impl FnMut(&[u8]) + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let (tell, ended) = sync_channel(1);
        let log =
            AccessLog { sender, spare: Arc::default(), waiting: Arc::default(), lost: Arc::default(), json };
        let (spare, waiting) = (log.spare.clone(), log.waiting.clone());
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            while let Ok(Message::Lines(mut lines)) = receiver.recv() {
                sink(&lines);
                waiting.fetch_sub(lines.len(), Relaxed);
                lines.clear();
                let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
                if spare.len() < MAX_SPARE {
                    spare.push(lines);
                }
            }
            // The writer may have ended.
            let _ = tell.try_send(());
        })?;
        Ok(Self { log, ended, thread: Some(thread) })
    }

    pub(super) fn log(&self) -> &AccessLog {
        &self.log
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.log.flush();
        let mut message = Message::End;
        for _ in 0..PATIENCE.as_millis() / 10 {
            match self.log.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(returned) | TrySendError::Disconnected(returned)) => {
                    message = returned
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.ended.recv_timeout(PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl AccessLog {
    /// Takes a request's line.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.bytes.capacity() == 0 {
                buffer.bytes = self.empty_buffer();
                buffer.log = Some(self.clone());
            }
            if self.json {
                write_json(&mut buffer.bytes, entry)
            } else {
                write_text(&mut buffer.bytes, entry)
            }
            buffer.lines += 1;
            if buffer.bytes.len() >= BATCH {
                self.hand_over(buffer);
            }
        });
    }

    /// Hands over what this thread has gathered.
    pub fn flush(&self) {
        BUFFER.with_borrow_mut(|buffer| {
            if !buffer.bytes.is_empty() {
                self.hand_over(buffer);
            }
        });
    }

    fn empty_buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BATCH + USUAL_LINE))
    }

    fn hand_over(&self, buffer: &mut Buffer) {
        let (bytes, lines) = (std::mem::take(&mut buffer.bytes), std::mem::take(&mut buffer.lines));
        let length = bytes.len();
        let fits = self.waiting.fetch_add(length, Relaxed) + length <= MAX_WAITING_BYTES;
        if !fits || self.sender.try_send(Message::Lines(bytes)).is_err() {
            self.waiting.fetch_sub(length, Relaxed);
            self.lost.fetch_add(lines, Relaxed);
        }
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Writes whole lines to standard error, between the lines of other threads.
pub(super) fn standard_error(lines: &[u8]) {
    // A failed write has no place to be reported.
    let _ = std::io::stderr().lock().write_all(lines);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{super::access_line::tests::entry, *};

    #[test]
    fn what_is_gathered_is_whole_at_the_end_and_what_is_lost_is_counted() {
        let written = Arc::new(Mutex::new(0));
        let sink = written.clone();
        let writer = Writer::start(true, move |lines: &[u8]| {
            *sink.lock().unwrap() += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        });
        let writer = writer.unwrap();
        let log = writer.log().clone();
        for _ in 0..50_000 {
            log.write(&entry());
        }
        drop(writer);
        assert_eq!(*written.lock().unwrap() + log.lost(), 50_000);

        let small = |log: &AccessLog| {
            log.write(&entry());
            log.flush();
        };
        let large = |log: &AccessLog| (0..200).for_each(|_| log.write(&entry()));
        for (write, times) in [(&small as &dyn Fn(&AccessLog), MAX_WAITING + 10), (&large, 200)] {
            let (stuck, release) = sync_channel::<()>(0);
            let writer = Writer::start(true, move |_: &[u8]| {
                let _ = release.recv();
            })
            .unwrap();
            let log = writer.log().clone();
            (0..times).for_each(|_| write(&log));
            assert!(log.lost() >= 8, "{}", log.lost());
            let waiting = log.waiting.load(Relaxed);
            assert!(
                waiting <= MAX_WAITING_BYTES && (times > 200 || waiting > MAX_WAITING_BYTES / 2),
                "{waiting}"
            );
            log.flush();
            drop(stuck);
        }
    }
}
