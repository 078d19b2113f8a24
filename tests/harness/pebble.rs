//! A certificate authority that speaks ACME: Let's Encrypt's Pebble, with a name server of its own.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde_json::json;
use tempfile::TempDir;

use super::{Authority, Client, eventually, port_to_keep};

/// The authority. Whatever it asks for comes to this machine.
pub struct Pebble {
    folder: TempDir,
    authority: Authority,
    port: u16,
    management: u16,
    env: Vec<(&'static str, &'static str)>,
    dns: Child,
    server: Option<Child>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in self.server.iter_mut().chain([&mut self.dns]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Pebble {
    /// Starts one that comes to these ports of http and https, and issues certificates for so many seconds.
    pub fn start(http: u16, https: u16, seconds: u64, env: &[(&'static str, &'static str)]) -> Self {
        let mut pebble = Self::prepare(http, https, seconds, env);
        pebble.run();
        pebble
    }

    /// The same, which is away until it is run.
    pub fn prepare(http: u16, https: u16, seconds: u64, env: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let own = authority.issue(&["localhost"]);
        fs::write(folder.path().join("cert.pem"), own.certificate).unwrap();
        fs::write(folder.path().join("key.pem"), own.key).unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let [port, management, names, names_management] = std::array::from_fn(|_| port_to_keep());
        let config = json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": "cert.pem", "privateKey": "key.pem",
            "httpPort": http, "tlsPort": https, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": seconds,
        }});
        fs::write(folder.path().join("pebble.json"), config.to_string()).unwrap();
        fs::write(folder.path().join("dns"), names.to_string()).unwrap();
        let dns = Command::new("pebble-challtestsrv")
            .args([
                "-defaultIPv4",
                "127.0.0.1",
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
            ])
            .arg("-dns01")
            .arg(format!("127.0.0.1:{names}"))
            .arg("-management")
            .arg(format!("127.0.0.1:{names_management}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`./run setup` installs Pebble");
        eventually("the name server listens", || TcpStream::connect(("127.0.0.1", names_management)).ok());
        Self { folder, authority, port, management, env: env.to_vec(), dns, server: None }
    }

    /// Lets it run.
    pub fn run(&mut self) {
        let names = fs::read_to_string(self.folder.path().join("dns")).unwrap();
        let server = Command::new("pebble")
            .args(["-strict", "-config", "pebble.json", "-dnsserver", &format!("127.0.0.1:{names}")])
            .current_dir(self.folder.path())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "20")
            .env("PEBBLE_AUTHZREUSE", "50")
            .envs(self.env.iter().copied())
            .stdout(fs::File::create(self.folder.path().join("log")).unwrap())
            .stderr(Stdio::null())
            .spawn();
        self.server = Some(server.expect("`./run setup` installs Pebble"));
        eventually("Pebble listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Ends it. Whatever is run later knows nothing of what was before.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Ends it and lets another one run.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// The key `acme` for it, with further keys, each with a leading comma.
    pub fn config(&self, more: &str) -> String {
        let (port, ca) = (self.port, self.folder.path().join("ca.pem"));
        format!(
            "acme: {{directory: \"https://localhost:{port}/dir\", email: ops@example.com, ca: \"{}\"{more}}}\n",
            ca.display()
        )
    }

    /// The settings of a client that believes what it issues.
    pub fn client(&self) -> Arc<ClientConfig> {
        let address = ([127, 0, 0, 1], self.management).into();
        let mut client = Client::connect_tls(address, "localhost", &self.authority.client(None));
        let response = client.send("GET /roots/0 HTTP/1.1\r\nHost: localhost\r\n\r\n").response();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(response.text().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // Whoever comes back is not shown the certificate anew.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(Path::new(self.folder.path()).join("log")).unwrap_or_default()
    }
}
