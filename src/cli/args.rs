//! What can be typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::{app::DemoOptions, config::Span};

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

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account
    Add {
        /// The account's name
        name: String,
        /// A role; may be repeated. Default: auth.default_roles
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        /// The account's e-mail address
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        /// Give a name out again that a former account had
        #[arg(long)]
        release: bool,
        /// Let the name look like that of another account
        #[arg(long)]
        allow_similar: bool,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Make a link by which strangers may make accounts, also where registration is closed
    Invite {
        /// A role beside auth.default_roles; may be repeated
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        /// How many accounts may be made by it
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// How long it holds, such as 7d
        #[arg(long, value_name = "SPAN", default_value = "7d")]
        expires: Span,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Let the name of a former account be given out again
    ReleaseName {
        /// The name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List accounts in the order of their names
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Show an account and its sessions
    Show {
        /// The account's name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Set a password; the account's sessions end
    SetPassword {
        /// The account's name
        name: String,
        #[command(flatten)]
        password: PasswordSource,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Set the roles; the account's sessions end
    SetRoles {
        /// The account's name
        name: String,
        /// A role; may be repeated. None takes all away
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Forbid logging in; the account's sessions end
    Disable {
        /// The account's name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Remove the second factors of somebody who has lost them; the account's sessions end
    ResetFactors {
        /// The account's name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Make a link by which somebody sets a new password, in place of those made before
    ResetLink {
        /// The account's name
        name: String,
        /// How long it holds, such as 1d
        #[arg(long, value_name = "SPAN", default_value = "1d")]
        expires: Span,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Allow logging in again
    Enable {
        /// The account's name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Take users in from another program, with their passwords
    ///
    /// Hashes of Werkzeug (pbkdf2, scrypt), bcrypt and argon2 are kept as they are and renewed at the next
    /// login. A user that is here already is passed over, so an import that was broken off is begun again.
    Import(Box<Import>),
    /// Delete an account for good; its name is not given out again
    Delete {
        /// The account's name
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// Where users come from, and which columns hold what.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Take users whose names look like those of others, too
    #[arg(long)]
    pub(super) allow_similar: bool,
    #[command(flatten)]
    pub(super) source: ImportSource,
    /// The table, for --postgres and --sqlite
    #[arg(long, value_name = "NAME", default_value = "users")]
    pub(super) table: String,
    /// The column of the old id; without one the name is kept as the old id
    #[arg(long, value_name = "COLUMN")]
    pub(super) id: Option<String>,
    /// The column of the name
    #[arg(long, value_name = "COLUMN", default_value = "username")]
    pub(super) name: String,
    /// The column of the password's hash
    #[arg(long, value_name = "COLUMN", default_value = "password")]
    pub(super) hash: String,
    /// The column of the e-mail address
    #[arg(long, value_name = "COLUMN")]
    pub(super) email: Option<String>,
    /// The column of the role, or of roles joined with commas
    #[arg(long, value_name = "COLUMN")]
    pub(super) roles: Option<String>,
    /// The column that says whether an account may not log in
    #[arg(long, value_name = "COLUMN")]
    pub(super) disabled: Option<String>,
    /// The old program had made sure that the addresses are their owners'
    #[arg(long)]
    pub(super) email_verified: bool,
    /// A role for every user whom no column gives one; may be repeated. Default: auth.default_roles
    #[arg(long = "role", value_name = "R")]
    pub(super) default_roles: Vec<String>,
    /// Check every user and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// A file for what was refused and why, as CSV. Default: standard output
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct ImportSource {
    /// A PostgreSQL database: postgres://USER:PASSWORD@HOST/DATABASE, or the name of an environment
    /// variable that holds it
    #[arg(long, value_name = "URL")]
    pub(super) postgres: Option<String>,
    /// A SQLite database
    #[arg(long, value_name = "FILE")]
    pub(super) sqlite: Option<PathBuf>,
    /// A CSV file with a line of column names; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// A file with one JSON object a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) jsonl: Option<PathBuf>,
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
pub(super) enum ApiKeyCommand {
    /// Make a key and print it; it is not shown again
    Add {
        /// The name of the account whose key it is
        owner: String,
        /// What the key is called
        #[arg(long, value_name = "NAME")]
        name: String,
        /// A path that it opens, such as /orders/**; may be repeated. Default: all that its owner may
        #[arg(long = "route", value_name = "PATTERN")]
        routes: Vec<String>,
        /// A role that it has; may be repeated. Default: all of its owner's
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        /// An address or network that it is accepted from, such as 10.0.0.0/8; may be repeated. Default: all
        #[arg(long = "from", value_name = "NETWORK")]
        networks: Vec<String>,
        /// How long it lives, such as 90d. Default: until it is ended
        #[arg(long, value_name = "SPAN")]
        expires: Option<Span>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List the keys of an account
    List {
        /// The account's name
        owner: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// End a key, at once and on all gateways
    End {
        /// The account's name
        owner: String,
        /// The key, as `api-key list` names it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All keys of the account
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Make a client and print its id and its secret, which is not shown again
    Add {
        /// What it is called
        name: String,
        /// A role; may be repeated
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        /// A file with its public keys (JSON Web Key Set), in place of a secret
        #[arg(long, value_name = "FILE")]
        jwks: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// List clients in the order of their names
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Set the roles; the client's tokens end
    SetRoles {
        /// The client's name or id
        client: String,
        /// A role; may be repeated. None takes all away
        #[arg(long = "role", value_name = "R")]
        roles: Vec<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print another secret; the one before and the client's tokens end
    RenewSecret {
        /// The client's name or id
        client: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Remove a client; its tokens end, at once and on all gateways
    Remove {
        /// The client's name or id
        client: String,
        #[command(flatten)]
        config: ConfigFile,
    },
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
