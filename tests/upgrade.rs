//! Another binary takes the place of a gateway that serves.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::harness::{
    Cluster, Gateway, Protocol, Settings, Upstream, authgate, eventually,
    streaming::{UPGRADE, begin, streaming_upstream},
    write_config,
};

const ROUTES: &str =
    "  - {path: /public/**, auth: none, upstream: backend}\n  - {path: /api/**, upstream: backend}\n";

/// A copy of the binary, which can be exchanged.
fn copied(folder: &Path) -> PathBuf {
    let path = folder.join("authgate");
    install(Path::new(authgate().get_program()), &path);
    path
}

/// Puts a program in the place of another one, which may run. A process of its own writes it: a file that this one has
/// open for writing goes along to whatever another test starts at that moment, and cannot be run for as long.
fn install(from: &Path, to: &Path) {
    let fresh = to.with_extension("new");
    let done = Command::new("install").args(["-m", "755"]).args([from, &fresh]).status().unwrap();
    assert!(done.success());
    fs::rename(&fresh, to).unwrap();
}

/// Puts a script, or what is none, in the place of a program.
fn install_text(text: &[u8], to: &Path) {
    let source = to.with_extension("source");
    fs::write(&source, text).unwrap();
    install(&source, to);
}

fn start(change: impl FnOnce(&mut Settings)) -> (Gateway, Upstream) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut settings = Settings { program: Some(copied(folder.path())), ..Settings::routes(ROUTES) };
    change(&mut settings);
    let upstream = streaming_upstream();
    (Gateway::start_in(folder, upstream.address, settings), upstream)
}

fn upgrade(gateway: &Gateway) -> Output {
    authgate().args(["upgrade", "--pid"]).arg(gateway.pid_file()).output().unwrap()
}

/// Upgrades, and waits until another process serves.
#[track_caller]
fn upgraded(gateway: &Gateway) -> u32 {
    let before = gateway.pid().unwrap();
    let output = upgrade(gateway);
    assert!(output.status.success(), "{output:?}\n{}", gateway.log());
    let after = gateway.pid().unwrap();
    assert!(before != after && String::from_utf8_lossy(&output.stdout).contains(&after.to_string()));
    after
}

fn is_there(pid: u32) -> bool {
    // A child that has ended is there until it is waited for.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[test]
fn another_binary_serves_and_what_was_begun_is_finished() {
    let (gateway, _upstream) = start(|_| {});
    let (token, gone) = (gateway.token("alice"), gateway.token("bob"));
    assert_eq!(gateway.logout(&gone).status, 200);
    let old = gateway.pid().unwrap();
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    let mut stream = begin(&gateway, "/api/events", Some(&token), "");
    assert_eq!(stream.head().0, 200);
    let mut slow = begin(&gateway, "/api/slow", Some(&token), "");
    let mut upload = gateway.client();
    upload.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf.");
    thread::sleep(Duration::from_millis(100));
    let new = upgraded(&gateway);
    // The new one serves new connections, by the same store.
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&gone)).status, 401);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    assert_eq!(gateway.login("alice")["access_token"].as_str().map(str::is_empty), Some(false));
    // What was begun goes on with the old one.
    assert_eq!(slow.response().text(), "late");
    upload.send("half.");
    assert_eq!(upload.response().status, 200);
    tunnel.send("ping");
    assert_eq!(tunnel.read_some(4), b"ping");
    assert!(is_there(old) && is_there(new));
    // A logout by way of the new one ends what the old one still carries.
    assert_eq!(gateway.logout(&token).status, 200);
    tunnel.until_closed_or_refused();
    stream.until_closed();
    eventually("the old one has ended", || (!is_there(old)).then_some(()));
    assert!(is_there(new) && gateway.get("/public/x", None).status == 200);
}

/// The bytes of the program that a process runs.
fn program_of(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn a_build_of_another_kind_takes_over_and_gives_back() {
    let (gateway, _upstream) = start(|_| {});
    let first = Path::new(authgate().get_program()).to_owned();
    let other = first.with_file_name("examples").join("other_build");
    let program = gateway.folder.path().join("authgate");
    assert!(fs::read(&first).unwrap() != fs::read(&other).unwrap());
    let gone = gateway.token("bob");
    assert_eq!(gateway.logout(&gone).status, 200);
    let mut ended = vec![gone];
    for (next, name) in [(&other, "alice"), (&first, "carol"), (&other, "dave")] {
        let token = gateway.token(name);
        let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
        assert_eq!(tunnel.head().0, 101);
        install(next, &program);
        let pid = upgraded(&gateway);
        assert!(program_of(pid) == fs::read(next).unwrap(), "the build that was put there serves");
        // What one has issued and ended the other knows, and both write to one store.
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
        for gone in &ended {
            assert_eq!(gateway.get("/api/x", Some(gone)).status, 401);
        }
        tunnel.send("ping");
        assert_eq!(tunnel.read_some(4), b"ping");
        assert_eq!(gateway.logout(&token).status, 200);
        tunnel.until_closed_or_refused();
        ended.push(token);
    }
}

#[test]
fn upgrades_under_load_lose_no_request() {
    for protocol in [Protocol::Http1, Protocol::Tls, Protocol::Http2] {
        let (gateway, _upstream) = start(|settings| {
            settings.protocol = protocol;
            settings.extra = "drain: {limit: 2s}\nlimits: {request_timeout: 10s}\n".to_owned();
        });
        let token = gateway.token("alice");
        let (ends, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..6 {
                let (gateway, token, ends, served) = (&gateway, &token, &ends, &served);
                // The harness's client of HTTP/2 does not see a goodbye between two requests.
                let more = if protocol == Protocol::Http2 { 0 } else { number % 3 };
                scope.spawn(move || {
                    while !ends.load(SeqCst) {
                        let mut client = gateway.client();
                        // Some come for a request, some stay for a few.
                        for _ in 0..=more {
                            client.send(format!(
                                "POST /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 4\r\n\r\nbody"
                            ));
                            match client.try_response() {
                                Some(response) => {
                                    assert_eq!(response.status, 200, "{response:?}");
                                    served.fetch_add(1, SeqCst);
                                    if response.header("connection") == Some("close") {
                                        break;
                                    }
                                }
                                // Closed between two requests, as either side may.
                                None if more > 0 => break,
                                None => panic!("a request on a new connection was lost\n{}", gateway.log()),
                            }
                        }
                    }
                });
            }
            for _ in 0..3 {
                let before = served.load(SeqCst);
                eventually("requests are served", || (served.load(SeqCst) > before + 50).then_some(()));
                upgraded(&gateway);
            }
            let before = served.load(SeqCst);
            eventually("requests are served", || (served.load(SeqCst) > before + 50).then_some(()));
            ends.store(true, SeqCst);
        });
    }
}

#[test]
fn a_binary_that_does_not_come_to_serve_changes_nothing() {
    let (gateway, _upstream) = start(|_| {});
    let token = gateway.token("alice");
    let program = gateway.folder.path().join("authgate");
    let config = gateway.folder.path().join("gateway.yaml");
    let (old, text) = (gateway.pid().unwrap(), fs::read_to_string(&config).unwrap());
    let fails = |what: &str| {
        let output = upgrade(&gateway);
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("goes on"), "{what}: {output:?}");
        assert_eq!(gateway.pid(), Some(old));
        for _ in 0..10 {
            assert_eq!(gateway.get("/api/x", Some(&token)).status, 200, "{what}");
        }
        assert_eq!(gateway.admin_get("/readyz").status, 200, "{what}");
    };
    install_text(b"#!/bin/sh\nexit 3\n", &program);
    fails("a binary that ends at once");
    install_text(b"no binary at all", &program);
    fails("a file that is no binary");
    fs::remove_file(&program).unwrap();
    fails("no file");
    install(Path::new(authgate().get_program()), &program);
    fs::write(&config, text.replace("routes:", "roots:")).unwrap();
    fails("a config that is wrong");
    fs::write(&config, &text).unwrap();
    assert!(gateway.log().contains("not upgraded, this process goes on"));
    upgraded(&gateway);
    eventually("the old one has ended", || (!is_there(old)).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
}

#[test]
fn the_new_one_goes_by_the_config_as_it_is_then() {
    let (gateway, _upstream) = start(|_| {});
    let mut settings = Settings::routes("  - {path: /other/**, auth: none, upstream: backend}\n");
    // What a reload refuses.
    settings.workers = 1;
    gateway.write(&settings);
    upgraded(&gateway);
    assert_eq!(gateway.get("/other/x", None).status, 200);
    assert_eq!(gateway.get("/public/x", None).status, 404);
}

#[test]
fn whoever_is_told_of_an_upgrade_meets_the_new_one_only() {
    let (gateway, _upstream) = start(|_| {});
    for number in 0..6 {
        let route = format!("  - {{path: /{number}, auth: none, upstream: backend}}\n");
        gateway.write(&Settings::routes(&route));
        upgraded(&gateway);
        for _ in 0..20 {
            assert_eq!(gateway.get(&format!("/{number}"), None).status, 200);
        }
    }
}

#[test]
fn gateways_on_postgresql_are_upgraded_too() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (gateway, _upstream) = start(|settings| settings.store = format!("{{url: \"{url}\"}}"));
    let token = gateway.token("alice");
    for _ in 0..2 {
        upgraded(&gateway);
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    }
    assert_eq!(gateway.logout(&token).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
}

#[test]
fn the_command_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let run = |file: &Path| authgate().args(["upgrade", "--pid"]).arg(file).output().unwrap();
    let file = folder.path().join("pid");
    for (contents, said) in
        [(None, "No such file"), (Some("x"), "no process id"), (Some("999999999"), "No such process")]
    {
        if let Some(contents) = contents {
            fs::write(&file, contents).unwrap();
        }
        let output = run(&file);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains(said), "{error}");
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of =
        |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("children")).ok();
    let all: Vec<String> = tasks.filter_map(of).collect();
    all.iter().flat_map(|children| children.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_gateway_that_is_told_to_end_while_it_upgrades_leaves_nobody_behind() {
    let (mut gateway, _upstream) = start(|_| {});
    let pid = gateway.pid().unwrap();
    let program = gateway.folder.path().join("authgate");
    install_text(b"#!/bin/sh\nexec sleep 300\n", &program);
    gateway.signal(libc::SIGUSR2);
    let child = eventually("another process is started", || children(pid).first().copied());
    assert!(gateway.stop().success());
    eventually("it has ended, too", || (!is_there(child)).then_some(()));
}

#[test]
#[ignore = "slow"]
fn a_successor_that_hangs_is_given_up_after_a_minute_and_changes_nothing() {
    let (gateway, _upstream) = start(|_| {});
    let (token, pid) = (gateway.token("alice"), gateway.pid().unwrap());
    let program = gateway.folder.path().join("authgate");
    install_text(b"#!/bin/sh\nexec sleep 300\n", &program);
    let output = upgrade(&gateway);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("goes on"), "{said}");
    assert!(gateway.log().contains("did not serve within 60 s"), "{}", gateway.log());
    assert!(children(pid).is_empty() && gateway.pid() == Some(pid));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    install(Path::new(authgate().get_program()), &program);
    upgraded(&gateway);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
}

#[test]
fn what_the_old_one_carries_has_as_long_as_a_drain() {
    let (gateway, _upstream) = start(|settings| settings.extra = "drain: {limit: 1s}\n".to_owned());
    let (token, old) = (gateway.token("alice"), gateway.pid().unwrap());
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    upgraded(&gateway);
    tunnel.until_closed_or_refused();
    eventually("the old one has ended", || (!is_there(old)).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
}

#[test]
fn only_successors_serve_by_the_same_store() {
    let (gateway, _upstream) = start(|settings| settings.extra = "drain: {limit: 60s}\n".to_owned());
    let token = gateway.token("alice");
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    let is_refused = || {
        let config = gateway.folder.path().join("gateway.yaml");
        let output = authgate().args(["serve", "--config"]).arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("another gateway serves"), "{said}");
    };
    is_refused();
    // With two that have the lock, and with the one that is left.
    upgraded(&gateway);
    is_refused();
    assert_eq!(gateway.logout(&token).status, 200);
    tunnel.until_closed_or_refused();
    is_refused();
}

#[test]
fn a_gateway_whose_successor_dies_ends_so_that_whoever_watches_it_sees_it() {
    let (mut gateway, _upstream) = start(|settings| {
        settings.extra = "drain: {limit: 60s}\n".to_owned();
    });
    let token = gateway.token("alice");
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    let successor = upgraded(&gateway);
    // SAFETY: the call takes no memory.
    unsafe { libc::kill(successor as libc::pid_t, libc::SIGKILL) };
    let status = eventually("the first one ends", || gateway.ended());
    assert!(!status.success(), "{status}");
}

#[test]
fn the_first_one_carries_its_tunnel_on_while_its_successors_are_upgraded_too() {
    let (mut gateway, _upstream) = start(|settings| {
        settings.extra = "drain: {limit: 60s}\n".to_owned();
    });
    let token = gateway.token("alice");
    let first = gateway.pid().unwrap();
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    let second = upgraded(&gateway);
    let third = upgraded(&gateway);
    eventually("the second one has drained", || (!is_there(second)).then_some(()));
    eventually("the first one has seen that", || gateway.log().contains("has drained").then_some(()));
    tunnel.send("ping");
    assert_eq!(tunnel.read_some(4), b"ping");
    assert!(is_there(first) && is_there(third));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    // SAFETY: the call takes no memory.
    unsafe { libc::kill(first as libc::pid_t, libc::SIGTERM) };
    let status = eventually("the first one ends", || gateway.ended());
    assert!(status.success() && is_there(third), "{status}");
}

#[test]
fn the_first_one_ends_with_the_service() {
    let (mut gateway, _upstream) = start(|settings| {
        settings.extra = "drain: {limit: 60s}\n".to_owned();
    });
    let token = gateway.token("alice");
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    let second = upgraded(&gateway);
    // SAFETY: the call takes no memory.
    unsafe { libc::kill(second as libc::pid_t, libc::SIGTERM) };
    tunnel.until_closed_or_refused();
    let status = eventually("the first one ends", || gateway.ended());
    assert!(status.success(), "{status}");
}

/// How long systemd waits to be told that the gateway lives.
const WATCHDOG: Duration = Duration::from_secs(3);

/// A gateway as systemd starts it.
struct Service {
    child: Child,
    notified: UnixDatagram,
    public: TcpListener,
    folder: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(pid) = self.pid().filter(|pid| *pid != self.child.id()) {
            // SAFETY: the call takes no memory.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
    }
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write_config(
            folder.path(),
            "listeners: [{address: \"systemd:public\"}]\nadmin: {address: \"127.0.0.1:0\"}\nworkers: 2\n\
             store: {url: \"sqlite:authgate.db\"}\nauth: {issuer: \"https://login.example.com\", audience: tests}\n\
             routes: [{path: /hello, auth: none, respond: {json: {}}}]\n",
        );
        let public = TcpListener::bind("127.0.0.1:0").unwrap();
        let notified = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let passed = public.as_raw_fd();
        // The id of a process is known to itself only.
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" serve --config "$1" --pid "$2""#])
            .arg(authgate().get_program())
            .arg(config)
            .arg(folder.path().join("pid"))
            .envs([
                ("LISTEN_FDS", "1"),
                ("LISTEN_FDNAMES", "public"),
                ("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string()),
            ])
            .env("NOTIFY_SOCKET", folder.path().join("notify"))
            .stderr(Stdio::null());
        // SAFETY: calls that are safe in a signal's handler.
        unsafe {
            command.pre_exec(move || {
                // A copy: what has this number already would be closed.
                let copy = libc::fcntl(passed, libc::F_DUPFD, 10);
                if libc::dup2(copy, 3) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let child = command.spawn().unwrap();
        Self { child, notified, public, folder }
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.folder.path().join("pid")).ok()?.trim().parse().ok()
    }

    /// Waits until systemd is told something.
    #[track_caller]
    fn is_told(&self, wanted: &str) {
        let mut message = [0; 1_024];
        loop {
            let length = self.notified.recv(&mut message).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    #[track_caller]
    fn serves(&self) {
        let mut client = TcpStream::connect(self.public.local_addr().unwrap()).unwrap();
        client.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
}

#[test]
fn systemd_passes_sockets_is_told_of_the_state_and_sees_that_it_lives() {
    let service = Service::start();
    service.is_told("READY=1");
    service.serves();
    service.is_told("WATCHDOG=1");
    // A successor has the socket, too, and is what systemd watches from then on.
    let output =
        authgate().args(["upgrade", "--pid"]).arg(service.folder.path().join("pid")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let successor = service.pid().unwrap();
    service.is_told(&format!("MAINPID={successor}"));
    eventually("the first one has ended", || (!is_there(service.child.id())).then_some(()));
    service.serves();
    service.is_told("WATCHDOG=1");
    // SAFETY: the call takes no memory.
    unsafe { libc::kill(successor as libc::pid_t, libc::SIGTERM) };
    service.is_told("STOPPING=1");
    eventually("it has ended", || (!is_there(successor)).then_some(()));
    assert_eq!(service.pid(), None, "the file goes with it");
}

/// A thread of another process that stands still for as long as this lives. Made and dropped by one thread.
struct Standing(libc::pid_t);

impl Standing {
    fn new(thread: libc::pid_t) -> Self {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: these requests read and write no memory.
        unsafe {
            assert_eq!(
                libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing),
                0,
                "{}",
                std::io::Error::last_os_error()
            );
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing), 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(thread, &mut status, libc::__WALL), thread);
        }
        Self(thread)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request reads and writes no memory.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, nothing, nothing) };
    }
}

#[test]
fn systemd_is_not_told_that_a_gateway_lives_while_one_of_its_workers_hangs() {
    let service = Service::start();
    service.is_told("READY=1");
    service.is_told("WATCHDOG=1");
    let threads = fs::read_dir(format!("/proc/{}/task", service.child.id())).unwrap();
    let worker = threads
        .map(|thread| thread.unwrap().path())
        .find(|thread| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim() == "worker-1"));
    let worker = worker.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
    let standing = Standing::new(worker);
    // It would be ended when nothing has come for so long.
    service.notified.set_read_timeout(Some(WATCHDOG)).unwrap();
    let heard = (0..5).position(|_| service.notified.recv(&mut [0; 1_024]).is_err());
    assert!(heard.is_some(), "it is told again and again");
    drop(standing);
    service.notified.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    service.is_told("WATCHDOG=1");
    service.serves();
}

#[test]
fn a_socket_that_systemd_does_not_pass_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let text = "listeners: [{address: \"systemd:public\"}]\nadmin: {address: \"127.0.0.1:0\"}\n\
        store: {url: \"sqlite:authgate.db\"}\nauth: {issuer: \"https://login.example.com\", audience: tests}\n";
    let config = write_config(folder.path(), text);
    let output = authgate().args(["serve", "--config"]).arg(&config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1)
            && said.contains("systemd:public")
            && said.contains("passed no socket"),
        "{said}"
    );
    // It is no fault of the config by itself.
    assert!(authgate().args(["check", "--config"]).arg(&config).output().unwrap().status.success());
    let errors = crate::harness::errors_of(folder.path(), &text.replace("systemd:public", "systemd:a b"));
    assert!(errors.contains("systemd: and the name"), "{errors}");
}
