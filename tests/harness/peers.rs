//! Programs that the tests meet beside the gateway. `./run setup` installs them.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, port_to_keep};

/// Chromium, by whatever name the system has it.
#[track_caller]
pub fn browser_program() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).flat_map(|folder| names.map(|name| folder.join(name)));
    found.into_iter().find(|path| path.exists()).expect("Chromium; `./run setup` installs it")
}

/// Where the peers are installed.
pub fn peer_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

/// A program of the peers' folder.
#[track_caller]
pub fn peer(path: &str) -> Command {
    let program = peer_folder().join(path);
    assert!(program.exists(), "{} is missing; `./run setup` installs it", program.display());
    Command::new(program)
}

/// What a few lines of Python print.
#[track_caller]
pub fn python(script: &str, args: &[&str]) -> String {
    let output = peer("venv/bin/python").args(["-c", script]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// What a program of the peers' prints.
#[track_caller]
pub fn python_file(name: &str, args: &[&str]) -> String {
    printed(peer("venv/bin/python"), name, args)
}

/// The same for one in JavaScript.
#[track_caller]
pub fn node_file(name: &str, args: &[&str]) -> String {
    printed(Command::new("node"), name, args)
}

#[track_caller]
fn printed(mut program: Command, name: &str, args: &[&str]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name);
    let output = program.arg(file).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// A Python program of the peers' that goes on, and what it prints.
pub struct PythonProcess {
    child: Child,
    pub stdin: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Drop for PythonProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PythonProcess {
    #[track_caller]
    pub fn start(name: &str, args: &[&str]) -> Self {
        let mut child = peer("venv/bin/python")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name))
            .args(args)
            .env("XDS", peer_folder().join("xds"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = lines.clone();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        Self { child, stdin, lines }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn said(&self, line: &str) -> bool {
        self.lines().iter().any(|own| own == line)
    }

    /// Forgets what it has said.
    pub fn forget(&self) {
        self.lines.lock().unwrap().clear();
    }

    /// The port that it says behind `name`, once it does.
    #[track_caller]
    pub fn port(&self, name: &str) -> u16 {
        eventually("the port of a peer", || {
            self.lines().iter().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        })
    }
}

/// A real mail server.
pub struct MailServer {
    pub port: u16,
    pub folder: Arc<TempDir>,
    encryption: &'static str,
    process: PythonProcess,
}

impl MailServer {
    /// `plain`, `starttls` or `tls`.
    #[track_caller]
    pub fn start(encryption: &'static str) -> Self {
        Self::start_on(Arc::new(tempfile::tempdir().unwrap()), port_to_keep(), encryption)
    }

    #[track_caller]
    fn start_on(folder: Arc<TempDir>, port: u16, encryption: &'static str) -> Self {
        let path = folder.path().display().to_string();
        let process = PythonProcess::start("smtp.py", &[&path, &port.to_string(), encryption]);
        let port = process.port("port ");
        Self { port, folder, encryption, process }
    }

    fn find<T>(&self, found: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.process.lines().iter().rev().find_map(|line| found(line))
    }

    /// Takes mails, refuses them, or never answers: `accept`, `refuse`, `stall`.
    pub fn behave(&mut self, behaviour: &str) {
        writeln!(self.process.stdin, "{behaviour}").unwrap();
        let said = format!("now {behaviour}");
        eventually(&said, || self.find(|line| (line == said).then_some(())));
    }

    /// Whether a mail is on its way and not answered.
    pub fn is_stalling(&self) -> bool {
        self.find(|line| (line == "stalling").then_some(())).is_some()
    }

    /// Ends it; nothing listens on its port.
    pub fn stop(&mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Another one on the same port.
    pub fn restart(&self) -> Self {
        Self::start_on(self.folder.clone(), self.port, self.encryption)
    }

    /// Every mail that it has taken.
    pub fn mails(&self) -> Vec<Value> {
        let lines = self.process.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }

    /// Waits for the mail with that number, from 0.
    #[track_caller]
    pub fn mail(&self, index: usize) -> Value {
        eventually("the mail arrives", || self.mails().get(index).cloned())
    }

    /// Waits for the mail with that number, from 0, of those to that address.
    #[track_caller]
    pub fn to(&self, address: &str, index: usize) -> Value {
        eventually("the mail arrives", || {
            self.mails().into_iter().filter(|mail| mail["to"][0] == address).nth(index)
        })
    }
}

/// The token in the link of a mail.
#[track_caller]
pub fn token_of(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    let rest = text.split("token=").nth(1).expect("a link with a token");
    rest.split_whitespace().next().unwrap().to_owned()
}
