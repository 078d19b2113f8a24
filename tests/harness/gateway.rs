//! The real gateway, as a process.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Client, PASSWORD, Protocol, Response, Upstream, eventually, protocol::USUAL};

/// The binary under test.
pub fn authgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_authgate"))
}

/// What differs between the gateways of the tests. Each part is YAML.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Lines below `auth:`, indented by two.
    pub auth: String,
    /// The store's settings, as one flow map.
    pub store: String,
    /// Lines below `routes:`, indented by two; `backend` is the upstream.
    pub routes: String,
    /// Further top-level lines.
    pub extra: String,
    /// Settings of the upstream after `servers`, each with a leading comma.
    pub upstream: String,
    /// Its servers, as flow maps with commas between, in place of the one that the test runs.
    pub servers: String,
    /// Where clients connect.
    pub listen: String,
    /// Settings of the listener after `address`, each with a leading comma.
    pub listener: String,
    /// Settings of the admin listener after `address`, each with a leading comma.
    pub admin: String,
    /// How many workers there are.
    pub workers: usize,
    /// The binary, if it is not the one that is tested.
    pub program: Option<PathBuf>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// What clients speak with it.
    pub protocol: Protocol,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            auth: String::new(),
            store: r#"{url: "sqlite:authgate.db"}"#.to_owned(),
            routes: "  - {path: /public/**, auth: none, upstream: backend}\n  - {path: /api/**, upstream: backend}\n  - {path: /optional/**, auth: optional, upstream: backend}\n  - {path: /admin/**, roles: {any: [admin]}, upstream: backend}\n".to_owned(),
            extra: String::new(),
            upstream: String::new(),
            servers: String::new(),
            listen: "127.0.0.1:0".to_owned(),
            listener: String::new(),
            admin: String::new(),
            workers: 2,
            program: None,
            env: Vec::new(),
            protocol: Protocol::current(),
        }
    }
}

impl Settings {
    /// Tokens signed with a secret that the tests know.
    pub fn shared_secret() -> Self {
        let auth = format!("  signing: {{algorithm: HS256, secret: \"{}\"}}\n", super::SECRET);
        Self { auth, ..Self::default() }
    }

    pub fn postgres(url: &str) -> Self {
        Self { store: format!("{{url: \"{url}\"}}"), ..Self::default() }
    }

    pub fn routes(routes: &str) -> Self {
        Self { routes: routes.to_owned(), ..Self::default() }
    }

    pub fn auth(mut self, lines: &str) -> Self {
        self.auth.push_str(lines);
        self
    }

    pub fn extra(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self
    }

    /// The upstream has these servers, each with a weight.
    pub fn servers(mut self, servers: &[(&Upstream, u32)]) -> Self {
        let server = |(upstream, weight): &(&Upstream, u32)| {
            format!("{{url: \"http://{}\", weight: {weight}}}", upstream.address)
        };
        self.servers = servers.iter().map(server).collect::<Vec<_>>().join(", ");
        self
    }

    fn yaml(&self, upstream: &str) -> String {
        let servers = match self.servers.as_str() {
            "" => format!("{{url: \"http://{upstream}\"}}"),
            servers => servers.to_owned(),
        };
        format!(
            "listeners:\n  - {{address: \"{}\"{}}}\nadmin: {{address: \"127.0.0.1:0\"{}}}\nworkers: {}\nstore: {}\n\
             auth:\n  issuer: https://login.example.com\n  audience: tests\n{}\
             upstreams:\n  backend: {{servers: [{servers}]{}}}\nroutes:\n{}log: {{format: json, level: debug}}\n{}",
            self.listen,
            self.protocol.listener().to_owned() + &self.listener,
            self.admin,
            self.workers,
            self.store,
            self.auth,
            self.upstream,
            self.routes,
            self.extra
        )
    }
}

/// Writes a config file into a folder.
pub fn write_config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("gateway.yaml");
    fs::write(&path, text).unwrap();
    path
}

/// What `authgate check` finds wrong with a config, which must be something.
pub fn errors_of(folder: &Path, text: &str) -> String {
    let output = authgate().args(["check", "--config"]).arg(write_config(folder, text)).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}\n{errors}");
    errors
}

/// Each of these upstreams is an error at a key, whose text says what is legal.
pub fn upstreams_are_errors(folder: &Path, cases: &[(&str, &str, &str)]) {
    for (upstream, key, expected) in cases {
        let errors = errors_of(
            folder,
            &format!(
                "listeners: [{{address: \"127.0.0.1:0\"}}]\nauth: {{issuer: a, audience: b}}\nupstreams:\n  x: {{{upstream}}}\nroutes: [{{path: /x, upstream: x}}]\n"
            ),
        );
        let place = format!("gateway.yaml:4: upstreams.x.{key}: ");
        assert!(errors.contains(&place) && errors.contains(expected), "{upstream}: {errors}");
    }
}

/// A gateway that serves.
pub struct Gateway {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub folder: Arc<TempDir>,
    settings: Settings,
    upstream: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.log().contains("upgrading") {
            self.kill_successors();
        }
    }
}

impl Gateway {
    /// Kills the processes that took its place, also one that has not said so yet.
    fn kill_successors(&self) {
        let file = self.pid_file().display().to_string();
        let has_file = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == file.as_bytes())
        };
        for process in fs::read_dir("/proc").unwrap().flatten().filter(has_file) {
            if let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) {
                // SAFETY: the call takes no memory.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }

    /// The file that holds the id of the process that serves.
    pub fn pid_file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.pid", self.child.id()))
    }

    /// The process that serves.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    #[track_caller]
    pub fn start(upstream: &Upstream, settings: Settings) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), upstream.address, settings)
    }

    /// A gateway with an upstream of its own that nobody asks.
    #[track_caller]
    pub fn alone(settings: Settings) -> Self {
        Self::start(&Upstream::start(), settings)
    }

    #[track_caller]
    pub fn start_in(folder: Arc<TempDir>, upstream: SocketAddr, settings: Settings) -> Self {
        let mut gateway = Self::spawn_in(folder, upstream, settings);
        gateway.wait();
        gateway
    }

    /// Waits until it serves.
    #[track_caller]
    pub fn wait(&mut self) {
        self.address = self.logged_address("listening");
        // The workers accept a moment after the sockets listen.
        eventually("the gateway is ready", || (self.admin_get("/readyz").status == 200).then_some(()));
    }

    /// A gateway with one of the configs in `config/seeds`, named by its first letter.
    #[track_caller]
    pub fn seed(letter: &str, env: &[(&str, &str)]) -> Self {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/seeds");
        let find = |entry: fs::DirEntry| {
            entry.file_name().to_str()?.starts_with(&format!("{letter}-")).then(|| entry.path())
        };
        let seed = fs::read_dir(seeds).unwrap().find_map(|entry| find(entry.unwrap())).unwrap();
        let env = [("LISTEN", "127.0.0.1:0"), ("ADMIN", "127.0.0.1:0")].iter().chain(env);
        let env = env.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::by_text(&fs::read_to_string(seed).unwrap(), env)
    }

    /// A gateway with a config of its own.
    #[track_caller]
    pub fn by_text(text: &str, env: Vec<(String, String)>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = write_config(folder.path(), text);
        let mut gateway = Self::spawn(folder, nowhere, Settings { env, ..Settings::default() }, &config);
        gateway.wait();
        gateway
    }

    /// The same, not waiting until it serves.
    #[track_caller]
    pub fn spawn_in(folder: Arc<TempDir>, upstream: SocketAddr, settings: Settings) -> Self {
        if settings.protocol.is_tls() {
            let issued = &USUAL.1;
            fs::write(folder.path().join("usual.pem"), &issued.certificate).unwrap();
            fs::write(folder.path().join("usual.key"), &issued.key).unwrap();
        }
        let config = write_config(folder.path(), &settings.yaml(&upstream.to_string()));
        Self::spawn(folder, upstream, settings, &config)
    }

    #[track_caller]
    fn spawn(folder: Arc<TempDir>, upstream: SocketAddr, settings: Settings, config: &Path) -> Self {
        let program = settings.program.clone().unwrap_or_else(|| authgate().get_program().into());
        // Each has a file of its own, by its own id.
        let mut command = Command::new("/bin/sh");
        let script = "exec \"$0\" serve --config \"$1\" --pid \"$2/$$.pid\"";
        command.args(["-c", script]).arg(program).arg(config).arg(folder.path());
        command.envs(settings.env.clone());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let kept = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Self { address: nowhere, admin: nowhere, folder, settings, upstream, child, log };
        gateway.admin = gateway.logged_address("admin listening");
        gateway
    }

    #[track_caller]
    fn logged_address(&mut self, message: &str) -> SocketAddr {
        eventually(&format!("{message}; the log says\n{}", self.log()), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                thread::sleep(std::time::Duration::from_millis(100));
                panic!("the gateway ended with {status}:\n{}", self.log());
            }
            self.log().lines().find_map(|line| {
                let event: Value = serde_json::from_str(line).ok()?;
                (event["message"] == message).then(|| event["address"].as_str()?.parse().ok())?
            })
        })
    }

    /// Stops it with SIGTERM; how it ended.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(libc::SIGTERM);
        eventually("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// Whether it has ended by itself, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was started here and not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Another one on the same store.
    #[track_caller]
    pub fn restart(&self) -> Self {
        Self::start_in(self.folder.clone(), self.upstream, self.settings.clone())
    }

    /// The same with other settings.
    #[track_caller]
    pub fn restart_with(&self, settings: Settings) -> Self {
        Self::start_in(self.folder.clone(), self.upstream, settings)
    }

    /// Writes another config in place of its own.
    pub fn write(&self, settings: &Settings) {
        write_config(self.folder.path(), &settings.yaml(&self.upstream.to_string()));
    }

    /// Writes another config and takes it up.
    #[track_caller]
    pub fn reload(&self, token: &str, settings: &Settings) -> Response {
        self.write(settings);
        self.admin("POST", "/api/config/reload", Some(token), None)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
    }

    /// The sizes of the mappings, in bytes, for which the process asks the kernel for huge pages.
    pub fn huge_mappings(&self) -> Vec<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).unwrap();
        let (mut size, mut found) = (0, Vec::new());
        for line in text.lines() {
            if let Some(kib) = line.strip_prefix("Size:") {
                size = kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024;
            }
            if line.strip_prefix("VmFlags:").is_some_and(|flags| flags.contains(" hg")) {
                found.push(size);
            }
        }
        found
    }

    /// How many files each of the process's epoll instances watches. Every worker has its own.
    pub fn watched_files(&self) -> Vec<usize> {
        let files = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).unwrap();
        // One that was closed meanwhile is none.
        let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
        texts.map(|text| text.lines().filter(|line| line.starts_with("tfd:")).count()).collect()
    }

    /// The names of the process's threads, with their niceness.
    pub fn threads(&self) -> Vec<(String, i32)> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let of = |path: PathBuf| {
            let stat = fs::read_to_string(path.join("stat")).unwrap();
            let (name, fields) = stat.rsplit_once(')').unwrap();
            let niceness = fields.split_whitespace().nth(16).unwrap().parse().unwrap();
            (name.split_once('(').unwrap().1.to_owned(), niceness)
        };
        threads.map(|thread| of(thread.unwrap().path())).collect()
    }

    /// Runs a command of the program with this gateway's config.
    pub fn command(&self, args: &[&str], input: &str) -> Output {
        let mut child = authgate()
            .args(args)
            .arg("--config")
            .arg(self.folder.path().join("gateway.yaml"))
            .envs(self.settings.env.clone())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The same for one that must succeed.
    #[track_caller]
    pub fn run(&self, args: &[&str], input: &str) -> String {
        let output = self.command(args, input);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        let config = || USUAL.0.client(None);
        match self.settings.protocol {
            Protocol::Http1 => Client::connect(self.address),
            Protocol::Tls => Client::connect_tls(self.address, "localhost", &config()),
            Protocol::Http2 => Client::connect_http2(self.address, Some(("localhost", &config()))),
            Protocol::H2c => Client::connect_http2(self.address, None),
        }
    }

    #[track_caller]
    pub fn admin_get(&self, path: &str) -> Response {
        Client::connect(self.admin).send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).response()
    }

    /// The value of a metric, by its name and labels as they stand.
    #[track_caller]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.admin_get("/metrics").text();
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// A call of the admin API.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Response {
        Client::connect(self.admin).send(request(method, path, token, body)).response()
    }

    #[track_caller]
    pub fn get(&self, path: &str, token: Option<&str>) -> Response {
        self.send("GET", path, token, None)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, None, Some(body))
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Response {
        self.client().send(request(method, path, token, body)).response()
    }

    /// Registers a user; the whole response.
    #[track_caller]
    pub fn register(&self, name: &str) -> Value {
        let response = self.post("/auth/register", &json!({"username": name, "password": PASSWORD}));
        assert_eq!(response.status, 201, "{response:?}");
        response.json()
    }

    /// Logs a user in; the whole response.
    #[track_caller]
    pub fn login(&self, name: &str) -> Value {
        let response = self.try_login(name, PASSWORD);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    #[track_caller]
    pub fn try_login(&self, name: &str, password: &str) -> Response {
        self.post("/auth/login", &json!({"username": name, "password": password}))
    }

    /// Registers a user; the access token.
    #[track_caller]
    pub fn token(&self, name: &str) -> String {
        self.register(name)["access_token"].as_str().unwrap().to_owned()
    }

    /// Makes an administrator; the access token.
    #[track_caller]
    pub fn admin_token(&self, name: &str) -> String {
        self.run(&["user", "add", name, "--role", "admin", "--password-stdin"], PASSWORD);
        self.login(name)["access_token"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn refresh(&self, token: &str) -> Response {
        self.post("/auth/refresh", &json!({"refresh_token": token}))
    }

    #[track_caller]
    pub fn logout(&self, token: &str) -> Response {
        self.send("POST", "/auth/logout", Some(token), None)
    }
}

fn request(method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    if let Some(token) = token {
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    let body = body.map(ToString::to_string).unwrap_or_default();
    if !body.is_empty() {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request + "\r\n" + &body
}
