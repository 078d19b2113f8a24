//! A PostgreSQL cluster that belongs to the tests: made, frozen, killed and thrown away by them.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{eventually, port_to_keep};

/// One server on loopback.
pub struct Cluster {
    folder: TempDir,
    port: u16,
    server: Child,
}

/// The newest installed server's programs, and what else is not on everybody's path.
fn bin(program: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(program))).collect()
        })
        .unwrap_or_default();
    found.retain(|path| path.exists());
    found.sort();
    let beside = Path::new("/usr/sbin").join(program);
    found.pop().unwrap_or_else(|| if beside.exists() { beside } else { program.into() })
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(bin(program));
    // SAFETY: no arguments, and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        let id = |flag: &str| {
            let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().expect("a user postgres")
        };
        command.uid(id("-u")).gid(id("-g"));
    }
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("authgate-pg-").tempdir().unwrap();
        Command::new("chmod").arg("777").arg(folder.path()).status().unwrap();
        let data = folder.path().join("data");
        let made = as_postgres("initdb")
            .args(["--auth=trust", "--username=authgate", "--no-sync", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .status()
            .expect("initdb runs");
        assert!(made.success());
        let port = port_to_keep();
        let server = Self::launch(&data, folder.path(), port);
        let cluster = Self { folder, port, server };
        cluster.wait();
        cluster
    }

    /// A server on a copy of this one's data as they are now, which remembers nothing later: a restored
    /// backup or, with `promoted`, a standby that lagged and took over.
    pub fn copy(&self, promoted: bool) -> Self {
        let copy = self.copied(promoted);
        if promoted {
            copy.sql("postgres", "SELECT pg_promote()");
        }
        copy
    }

    /// A server that follows, and takes no writes.
    pub fn standby(&self) -> Self {
        self.copied(true)
    }

    fn copied(&self, as_standby: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("authgate-pg-").tempdir().unwrap();
        Command::new("chmod").arg("777").arg(folder.path()).status().unwrap();
        let data = folder.path().join("data");
        let made = as_postgres("pg_basebackup")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "authgate", "--no-sync"])
            .args(["--checkpoint=fast", "--wal-method=stream", "--pgdata"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success());
        if as_standby {
            // It follows nobody, and is told to take over.
            std::fs::write(data.join("standby.signal"), "").unwrap();
        }
        let port = port_to_keep();
        let server = Self::launch(&data, folder.path(), port);
        let copy = Self { folder, port, server };
        copy.wait();
        copy
    }

    fn launch(data: &std::path::Path, sockets: &std::path::Path, port: u16) -> Child {
        as_postgres("postgres")
            .arg("-D")
            .arg(data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"])
            // Its processes are killed and the machine is not: what they wrote is there again without the
            // disk, which a busy machine may wait for longer than the bounds that the tests declare.
            .args(["-c", "fsync=off"])
            // What a killed server leaves behind goes with its folder.
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", sockets.display()))
            .spawn()
            .expect("postgres runs")
    }

    fn wait(&self) {
        eventually("PostgreSQL answers", || self.try_sql("postgres", "SELECT 1").then_some(()));
    }

    /// Whether a statement succeeds.
    pub fn try_sql(&self, database: &str, sql: &str) -> bool {
        as_postgres("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "authgate",
                "-d",
                database,
                "-c",
                sql,
            ])
            .status()
            .unwrap()
            .success()
    }

    /// Runs a statement in a database of this cluster.
    #[track_caller]
    pub fn sql(&self, database: &str, sql: &str) {
        assert!(self.try_sql(database, sql), "{sql}");
    }

    /// A fresh database; its connection string.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://authgate@127.0.0.1:{}/{database}", self.port)
    }

    /// Stops every process of the server where it is; they response nobody.
    /// Where the server listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file beside the data, readable by the server alone; its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join("data").join(name);
        std::fs::write(&path, text).unwrap();
        // As the data's, or the server would refuse a key.
        let owner =
            Command::new("chown").arg("--reference").arg(self.folder.path().join("data")).arg(&path).status();
        assert!(owner.unwrap().success());
        let mode = Command::new("chmod").arg("600").arg(&path).status();
        assert!(mode.unwrap().success());
        path
    }

    pub fn freeze(&self) {
        self.signal_all(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.signal_all(libc::SIGCONT);
    }

    fn signal_all(&self, signal: i32) {
        let server = self.server.id();
        let children =
            std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap_or_default();
        let all =
            children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).chain([server as i32]);
        for pid in all {
            // SAFETY: a signal to the server that was started here, or to its children.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Ends the server at once, as a power cut would.
    pub fn kill(&mut self) {
        self.signal_all(libc::SIGKILL);
        let _ = self.server.wait();
    }

    pub fn restart(&mut self) {
        let data = self.folder.path().join("data");
        let _ = std::fs::remove_file(data.join("postmaster.pid"));
        // One of its children that was made while it was killed may still hold its memory for a moment.
        eventually("PostgreSQL answers again", || {
            if !matches!(self.server.try_wait(), Ok(None)) {
                self.server = Self::launch(&data, self.folder.path(), self.port);
            }
            self.try_sql("postgres", "SELECT 1").then_some(())
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.thaw();
        // It tidies up its shared memory on its way, without waiting for anybody.
        // SAFETY: a signal to the server that was started here.
        unsafe { libc::kill(self.server.id() as i32, libc::SIGQUIT) };
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

/// One connection with what it holds: locks, a transaction that has not ended. Dropping it rolls back.
pub struct SqlSession {
    client: Child,
    said: BufReader<ChildStdout>,
}

impl SqlSession {
    pub fn open(url: &str) -> Self {
        let mut client = as_postgres("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(client.stdout.take().unwrap());
        Self { client, said }
    }

    /// Runs statements to their end; the lines that they gave.
    #[track_caller]
    pub fn run(&mut self, sql: &str) -> Vec<String> {
        writeln!(self.client.stdin.as_mut().unwrap(), "{sql};\n\\echo done").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it failed: {sql}");
            match line.trim_end() {
                "done" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

impl Drop for SqlSession {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

/// A real pooler before a cluster.
pub struct Pooler {
    _folder: TempDir,
    port: u16,
    process: Child,
}

impl Pooler {
    /// Hands connections out by the `session` or by the `transaction`.
    pub fn start(cluster: &Cluster, mode: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("authgate-pool-").tempdir().unwrap();
        Command::new("chmod").arg("777").arg(folder.path()).status().unwrap();
        let port = port_to_keep();
        let config = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=authgate\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\n\
             unix_socket_dir =\n",
            cluster.port
        );
        std::fs::write(&config, settings).unwrap();
        let process = as_postgres("pgbouncer").arg(&config).spawn().expect("pgbouncer runs");
        let pooler = Self { _folder: folder, port, process };
        eventually("the pooler answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        pooler
    }

    /// A connection string of the cluster's by way of the pooler.
    pub fn url(&self, url: &str) -> String {
        format!("postgres://authgate@127.0.0.1:{}/{}", self.port, url.rsplit('/').next().unwrap())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

static SHARED: OnceLock<Mutex<Option<Cluster>>> = OnceLock::new();

/// Statics are not dropped, and a server must not outlive the tests.
extern "C" fn end_shared() {
    if let Some(shared) = SHARED.get() {
        drop(shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A fresh database on the one cluster that most tests share.
pub fn shared_database() -> String {
    let shared = SHARED.get_or_init(|| {
        // SAFETY: the handler is a plain function that unwinds nowhere.
        unsafe { libc::atexit(end_shared) };
        Mutex::new(Some(Cluster::start()))
    });
    shared.lock().unwrap().as_ref().expect("the tests are still running").database()
}

/// Runs statements in a database that [`shared_database`] made.
#[track_caller]
pub fn shared_sql(url: &str, sql: &str) {
    let database = url.rsplit('/').next().unwrap();
    let shared = SHARED.get().expect("a database was made").lock().unwrap();
    shared.as_ref().expect("the tests are still running").sql(database, sql);
}
