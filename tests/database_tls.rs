//! The connection to PostgreSQL is protected as `sslmode` says, by a real server with `ssl=on`.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::harness::{Cluster, Gateway, PASSWORD, Settings, Upstream, authgate, write_config};

/// A certificate authority of the tests.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate of these names, and its key, as PEM.
    fn issue(&self, names: &[&str], common_name: &str) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A server that takes connections by TLS only, with a certificate of this name.
struct Server {
    cluster: Cluster,
    folder: TempDir,
    authority: Authority,
}

impl Server {
    fn start(name: &str) -> Self {
        let (cluster, authority) = (Cluster::start(), Authority::new());
        let (certificate, key) = authority.issue(&[name], "server");
        cluster.write("server.crt", &certificate);
        cluster.write("server.key", &key);
        cluster.write("clients.crt", &authority.pem());
        let quiet = "SET client_min_messages = warning";
        for sql in [
            quiet,
            "CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'a password'",
            "CREATE ROLE certified LOGIN SUPERUSER",
        ] {
            cluster.sql("postgres", sql);
        }
        // The tests' own way in stays as it is.
        cluster.write(
            "pg_hba.conf",
            "local all all trust\nhost all authgate 127.0.0.1/32 trust\n\
             hostssl all guarded 127.0.0.1/32 scram-sha-256\nhostssl all certified 127.0.0.1/32 cert\n",
        );
        cluster.write("postgresql.auto.conf", "ssl = on\nssl_ca_file = 'clients.crt'\n");
        cluster.sql("postgres", "SELECT pg_reload_conf()");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { cluster, folder, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A connection string for a fresh database.
    fn url(&self, user: &str, query: &str) -> String {
        let database = self.cluster.database().rsplit('/').next().unwrap().to_owned();
        let query = query.replace("CA", &self.path("ca.pem").display().to_string());
        format!("postgres://{user}@127.0.0.1:{}/{database}?{query}", self.cluster.port())
    }

    /// Whether `authgate migrate` gets through, or what it says.
    fn migrate(&self, url: &str) -> Result<(), String> {
        let config = write_config(
            self.folder.path(),
            &format!(
                "listeners: [{{address: 127.0.0.1:0}}]\nstore: {{url: \"{url}\"}}\nauth: {{issuer: i, audience: a}}\n"
            ),
        );
        let output = authgate().arg("migrate").arg("--config").arg(config).output().unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

const GUARDED: &str = "guarded:a%20password";

#[test]
fn a_gateway_works_over_a_verified_connection_and_so_do_imports() {
    let server = Server::start("127.0.0.1");
    let url = server.url(GUARDED, "sslmode=verify-full&sslrootcert=CA&channel_binding=require");
    let settings = || Settings {
        store: format!("{{url: \"{url}\"}}"),
        ..Settings::default().auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
    };
    let upstream = Upstream::start();
    let gateways = [Gateway::start(&upstream, settings()), Gateway::start(&upstream, settings())];
    let token = gateways[0].token("alice");
    assert_eq!(gateways[1].get("/api/x", Some(&token)).status, 200);
    assert_eq!(gateways[0].logout(&token).status, 200);
    // Hints and the log come the same way.
    crate::harness::eventually("the other gateway knows", || {
        (gateways[1].get("/api/x", Some(&token)).status == 401).then_some(())
    });
    assert_eq!(gateways[1].metric("authgate_revocation_listening"), Some(1.0));
    let old = Settings { store: "{url: \"sqlite:new.db\"}".to_owned(), ..Settings::default() };
    let importer = Gateway::alone(old);
    let import =
        ["user", "import", "--postgres", &url, "--table", "accounts", "--id", "id", "--name", "name"];
    let report = importer.command(&[&import[..], &["--hash", "password_hash"]].concat(), "");
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    assert_eq!(importer.try_login("alice", PASSWORD).status, 200);
}

#[test]
fn sslmode_decides_what_is_verified() {
    let right = Server::start("127.0.0.1");
    let other = Server::start("db.example.com");
    let stranger = Authority::new();
    fs::write(right.path("stranger.pem"), stranger.pem()).unwrap();
    let wrong_root = format!("sslrootcert={}", right.path("stranger.pem").display());
    let verified = "sslrootcert=CA";
    for (server, query, works) in [
        (&right, format!("sslmode=verify-full&{verified}"), true),
        (&right, format!("sslmode=verify-ca&{verified}"), true),
        (&right, format!("sslmode=require&{verified}"), true),
        (&right, "sslmode=require".to_owned(), true),
        (&right, "sslmode=prefer".to_owned(), true),
        // On this machine nobody is between.
        (&right, String::new(), false),
        (&right, "sslmode=disable".to_owned(), false),
        // Nobody but this machine's authorities is trusted, and the test's is not among them.
        (&right, "sslmode=verify-full".to_owned(), false),
        (&right, format!("sslmode=verify-full&{wrong_root}"), false),
        (&right, format!("sslmode=verify-ca&{wrong_root}"), false),
        (&right, format!("sslmode=require&{wrong_root}"), false),
        (&other, format!("sslmode=verify-full&{verified}"), false),
        (&other, format!("sslmode=verify-ca&{verified}"), true),
        (&other, "sslmode=require".to_owned(), true),
    ] {
        let result = server.migrate(&server.url(GUARDED, &query));
        assert_eq!(result.is_ok(), works, "{query}: {result:?}");
        assert!(!format!("{result:?}").contains("a%20password"));
    }
}

#[test]
fn a_client_certificate_is_shown_where_it_is_given() {
    let server = Server::start("127.0.0.1");
    let (certificate, key) = server.authority.issue(&[], "certified");
    fs::write(server.path("client.pem"), certificate).unwrap();
    fs::write(server.path("client.key"), key).unwrap();
    let query = "sslmode=verify-full&sslrootcert=ca.pem";
    assert!(server.migrate(&server.url("certified", query)).is_err());
    // Relative to the config's folder.
    let shown = format!("{query}&sslcert=client.pem&sslkey=client.key");
    assert_eq!(server.migrate(&server.url("certified", &shown)), Ok(()));
}

#[test]
fn what_makes_no_sense_is_told_by_file_and_line() {
    let server = Server::start("127.0.0.1");
    for (query, problem) in [
        ("sslmode=allow", "sslmode: expected disable, prefer, require, verify-ca or verify-full"),
        ("sslcert=client.pem", "expected sslcert and sslkey together"),
        ("sslmode=verify-full&sslrootcert=nowhere.pem", "nowhere.pem"),
    ] {
        let said = server.migrate(&server.url(GUARDED, query)).unwrap_err();
        assert!(said.contains(problem), "{query}: {said}");
        assert!(!said.contains("a%20password"), "{said}");
    }
}
