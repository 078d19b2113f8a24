//! The whole product on an embedded store, with a backend that shows what it receives.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use super::{
    error::StartError,
    load::{LoadedGateway, compile, further, log_settings},
    operator::open_operator,
    sample,
    server::{OnReady, ServeError, Start, serve},
};
use crate::{
    account::{AccountError, Actor, NewAccount},
    clock::SystemClock,
    config::{self, Config, ConfigErrors},
    error::Kind,
    telemetry,
    types::{AttributeChanges, OsRandom, Random, Roles, Secret},
};

const CONFIG: &str = include_str!("../../config/demo.yaml");

/// The files of a certificate that is made on the spot.
const CERTIFICATE: &str = "demo-cert.pem";
const KEY: &str = "demo-key.pem";

/// Where the demo runs.
#[derive(Debug)]
pub struct DemoOptions {
    /// The public listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The folder of the database.
    pub data: PathBuf,
    /// Whether the public listener speaks TLS, with a certificate that is made on the spot.
    pub tls: bool,
}

/// Why the demo does not run.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The folder cannot be used.
    #[error("{0}: {1}")]
    Folder(String, std::io::Error),
    /// No certificate could be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The options do not make a config.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The administrator's account could not be made.
    #[error("administrator: {0}")]
    Account(#[from] AccountError),
    /// The store could not be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway could not run.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the demo until the process is told to end.
///
/// # Errors
/// [`DemoError`].
pub fn demo(options: &DemoOptions) -> Result<(), DemoError> {
    let folder = |error| DemoError::Folder(options.data.display().to_string(), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&options.data).map_err(folder)?;
    let data = fs::canonicalize(&options.data).map_err(folder)?;
    let upstream = start_sample().map_err(folder)?;
    let scheme = if options.tls { "https" } else { "http" };
    let mut text = CONFIG.to_owned();
    if options.tls {
        make_certificate(&data)?;
        text = text
            .replace("admin: {", &format!("    tls: {{certificate: {CERTIFICATE}, key: {KEY}}}\nadmin: {{"));
    }
    // Browsers take the cookies of http from this machine only, and passkeys for names only.
    let public = format!("{scheme}://localhost:{}", options.listen.port());
    let variables = |name: &str| match name {
        "LISTEN" => Some(options.listen.to_string()),
        "ADMIN" => Some(options.admin.to_string()),
        "DATA" => Some(data.display().to_string()),
        "PUBLIC" => Some(public.clone()),
        "SCHEME" => Some(scheme.to_owned()),
        "UPSTREAM" => Some(upstream.to_string()),
        _ => None,
    };
    let loaded: LoadedGateway = compile(config::load("demo.yaml", &text, &data, &variables, &further)?)?;
    let log = telemetry::init(log_settings(&loaded.config.log));
    let password = ensure_administrator(&loaded.config, &data.join("admin-password"))?;
    let (base, admin) = (format!("{scheme}://{}", options.listen), format!("http://{}", options.admin));
    let curl = if options.tls {
        format!("curl --cacert '{}'", data.join(CERTIFICATE).display())
    } else {
        "curl".to_owned()
    };
    let page = format!("{public}/api/orders");
    let on_ready: OnReady =
        Box::new(move || println!("{}", instructions(&curl, &base, &page, &admin, password.expose())));
    serve(loaded, None, log.logs(), Start { on_ready: Some(on_ready), ..Start::default() })?;
    Ok(())
}

/// Makes a certificate for this machine that signs itself, unless there is one.
fn make_certificate(data: &Path) -> Result<(), DemoError> {
    let (certificate, key) = (data.join(CERTIFICATE), data.join(KEY));
    if certificate.exists() && key.exists() {
        return Ok(());
    }
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    let error = |error| DemoError::Folder(key.display().to_string(), error);
    let mut file =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&key).map_err(error)?;
    file.write_all(made.signing_key.serialize_pem().as_bytes()).map_err(error)?;
    fs::write(&certificate, made.cert.pem()).map_err(error)
}

/// Runs the sample backend on a thread of its own, for as long as the process lives.
fn start_sample() -> std::io::Result<SocketAddr> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("sample".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(async {
                let started = sample::start().await;
                let runs = started.is_ok();
                if tell.send(started).is_ok() && runs {
                    std::future::pending::<()>().await;
                }
            }),
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    told.recv().unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Makes the account `admin` with a password of its own, kept beside the database: no two demos
/// share one, and none is known beforehand.
fn ensure_administrator(config: &Config, file: &Path) -> Result<Secret, DemoError> {
    let error = |error| DemoError::Folder(file.display().to_string(), error);
    let password = match fs::read_to_string(file) {
        Ok(text) => Secret::new(text.trim_end()),
        Err(_) => {
            let random: &dyn Random = &OsRandom;
            let password = Secret::new(URL_SAFE_NO_PAD.encode(random.bytes::<18>()));
            let mut kept =
                OpenOptions::new().create_new(true).write(true).mode(0o600).open(file).map_err(error)?;
            writeln!(kept, "{}", password.expose()).map_err(error)?;
            password
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
    runtime.block_on(async {
        let (operator, _) = open_operator(config, Arc::new(SystemClock)).await?;
        let by = Actor { id: None, name: "demo".to_owned(), address: None };
        let roles = Roles::parse_joined("admin,user").unwrap_or_default();
        let account = NewAccount {
            name: "admin",
            email: None,
            password: &password,
            roles,
            must_change_password: false,
            attributes: AttributeChanges::new(),
            release: false,
            allow_similar: false,
        };
        match operator.add(&by, account).await {
            Err(error) if error.kind() != Kind::UsernameExists => Err(DemoError::from(error)),
            _ => Ok(()),
        }
    })?;
    Ok(password)
}

/// Commands to try, ready to be pasted.
fn instructions(curl: &str, base: &str, page: &str, admin: &str, admin_password: &str) -> String {
    let json = "-H 'Content-Type: application/json'";
    let token = r#"sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p'"#;
    format!(
        r#"
authgate is running at {base}, with a sample backend behind it. Open {page} in a browser, or try, in another terminal:

# an open route
{curl} -s {base}/public/hello

# a protected one, without a token: 401
{curl} -s -i {base}/api/orders

# register, log in, call through
{curl} -s {base}/auth/register {json} -d '{{"username":"alice","password":"a long enough password"}}'
TOKEN=$({curl} -s {base}/auth/login {json} -d '{{"username":"alice","password":"a long enough password"}}' | {token})
{curl} -s {base}/api/orders -H "Authorization: Bearer $TOKEN"

# alice is not an administrator: 403
{curl} -s -i {base}/admin/users -H "Authorization: Bearer $TOKEN"

# log out; the same token is refused at once
{curl} -s -X POST {base}/auth/logout -H "Authorization: Bearer $TOKEN"
{curl} -s -i {base}/api/orders -H "Authorization: Bearer $TOKEN"

# the administrator
ADMIN=$({curl} -s {base}/auth/login {json} -d '{{"username":"admin","password":"{admin_password}"}}' | {token})
{curl} -s {base}/admin/users -H "Authorization: Bearer $ADMIN"

# the admin API, on a listener of its own
curl -s {admin}/api/users -H "Authorization: Bearer $ADMIN"

Ctrl-C ends it."#
    )
}
