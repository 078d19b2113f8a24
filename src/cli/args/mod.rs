//! What can be typed.

mod program;
mod user;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

pub(super) use self::{
    program::{ApiKeyCommand, ClientCommand, WebhookCommand},
    user::{Import, ImportSource, UserCommand},
};
use crate::app::DemoOptions;

/// The version, and how the binary was built where that was not by a plain `cargo build`: `./run release` says so.
const VERSION: &str = if option_env!("AUTHGATE_PROFILED").is_some() {
    concat!(env!("CARGO_PKG_VERSION"), " (profiled)")
} else {
    env!("CARGO_PKG_VERSION")
};

/// An authentication gateway: one binary in front of your backends.
///
/// It registers users, logs them in and out, checks a bearer token for everything else, and forwards
/// what is allowed with headers that say who is calling.
#[derive(Debug, Parser)]
#[command(name = "authgate", version = VERSION, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Begin with `authgate demo`. Exit codes: 0 fine, 1 refused, 2 usage.")]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run everything on an embedded store, with a sample backend; prints what to try
    Demo(Demo),
    /// Run the gateway
    Serve(Serve),
    /// Have a running gateway replaced by the binary that lies at its path now, without a lost request
    ///
    /// It is what SIGUSR2 does, and waits for what comes of it. The gateway must have been started with --pid.
    Upgrade {
        /// The file with the process id of the gateway
        #[arg(long, value_name = "FILE")]
        pid: PathBuf,
    },
    /// Check a config, print its routes and run its tests
    Check(Check),
    /// Tell which route takes a request, what is decided and why
    ///
    /// Without --role and --anonymous the caller is signed in and has no roles.
    /// Exit codes: 0 allowed, 3 denied, 4 no route or method, 1 not a canonical path.
    Explain(Explain),
    /// Bring the store's schema up to date
    Migrate(ConfigFile),
    /// Accounts: the way the first administrator comes to be
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// API keys of accounts, for programs
    ApiKey {
        #[command(subcommand)]
        command: ApiKeyCommand,
    },
    /// Client programs, which get tokens of their own
    Client {
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Receivers that are told of events
    Webhook {
        #[command(subcommand)]
        command: WebhookCommand,
    },
    /// Signing keys
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// The list of stolen passwords that nobody may choose
    PasswordFilter {
        #[command(subcommand)]
        command: PasswordFilterCommand,
    },
    /// Show who changed what, when, from where; the newest first
    Audit(Audit),
    /// Print the JSON Schema of the config, for editors
    Schema,
    /// Print the Postman collection of all calls
    Postman,
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// The admin listener of a gateway, such as http://127.0.0.1:9901: tell how its routes and decisions would change
    #[arg(long, value_name = "URL")]
    pub(super) against: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// The file that holds the process id while the gateway serves
    #[arg(long, value_name = "FILE")]
    pub(super) pid: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// The config file
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where health, metrics and the admin API are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// The folder of the database
    #[arg(long, value_name = "DIR", default_value = "./authgate-data")]
    data: PathBuf,
    /// Speak https, with a certificate that is made on the spot
    #[arg(long)]
    tls: bool,
}

impl From<Demo> for DemoOptions {
    fn from(demo: Demo) -> Self {
        Self { listen: demo.listen, admin: demo.admin, data: demo.data, tls: demo.tls }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// The method, such as GET
    pub(super) method: http::Method,
    /// The path, such as /api/orders/1
    pub(super) path: String,
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// The Host that the request names
    #[arg(long, value_name = "H")]
    pub(super) host: Option<String>,
    /// A role of the caller; may be repeated
    #[arg(long = "role", value_name = "R")]
    pub(super) roles: Vec<String>,
    /// The caller has no token
    #[arg(long, conflicts_with = "roles")]
    pub(super) anonymous: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Audit {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Only lines about this account
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    /// At most so many lines, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: u32,
    /// One JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct PasswordSource {
    /// Read the password from standard input instead of asking for it
    #[arg(long)]
    pub(super) password_stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum PasswordFilterCommand {
    /// Make the file for auth.password.breached from a list of SHA-1 hashes, such as that of Have I Been Pwned
    ///
    /// The list has a hash a line in hexadecimal, sorted, and perhaps `:` and how often it was seen.
    Build {
        /// The file to make; the one that is there is replaced once the new one is whole
        output: PathBuf,
        /// The list; `-` for standard input
        #[arg(default_value = "-")]
        list: PathBuf,
        /// Leave out what was seen less often
        #[arg(long, value_name = "N", default_value_t = 0)]
        min_count: u64,
    },
    /// Tell whether a password is in a file; exit code 3 if it is
    Check {
        /// The file
        file: PathBuf,
        /// Read the password from standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys that verify tokens
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Make a new key; the old ones verify until their tokens have expired
    Rotate {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Wrap the secrets in the store with auth.master_key, which so far auth.previous_master_key has wrapped
    Rewrap {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// End every token that a key has signed, at once and on all gateways
    Revoke {
        /// The key, as `key list` names it
        // One in 64 begins with a hyphen.
        #[arg(required_unless_present = "all", conflicts_with = "all", allow_hyphen_values = true)]
        kid: Option<String>,
        /// All keys, and every session: everybody signs in anew. For a store restored from a backup
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}
