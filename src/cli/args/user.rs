//! What can be typed about accounts.

use std::path::PathBuf;

use clap::Subcommand;

use super::{ConfigFile, PasswordSource};
use crate::config::Span;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UserCommand {
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
        /// The owner is to choose another password at the first login
        #[arg(long)]
        must_change: bool,
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
        /// The owner is to choose another password at the next login
        #[arg(long)]
        must_change: bool,
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
    /// Set attributes that the config declares; the account's sessions end
    SetAttributes {
        /// The account's name
        name: String,
        /// New values; without one an attribute is taken away
        #[arg(required = true, value_name = "ATTRIBUTE=[VALUE]", value_parser = attribute)]
        attributes: Vec<(String, Option<String>)>,
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

/// Reads `name=value`, or `name=` for none.
fn attribute(text: &str) -> Result<(String, Option<String>), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected ATTRIBUTE=VALUE")?;
    Ok((name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty())))
}

/// Where users come from, and which columns hold what.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigFile,
    /// Take users whose names look like those of others, too
    #[arg(long)]
    pub(in crate::cli) allow_similar: bool,
    #[command(flatten)]
    pub(in crate::cli) source: ImportSource,
    /// The table, for --postgres and --sqlite
    #[arg(long, value_name = "NAME", default_value = "users")]
    pub(in crate::cli) table: String,
    /// The column of the old id; without one the name is kept as the old id
    #[arg(long, value_name = "COLUMN")]
    pub(in crate::cli) id: Option<String>,
    /// The column of the name
    #[arg(long, value_name = "COLUMN", default_value = "username")]
    pub(in crate::cli) name: String,
    /// The column of the password's hash
    #[arg(long, value_name = "COLUMN", default_value = "password")]
    pub(in crate::cli) hash: String,
    /// The column of the e-mail address
    #[arg(long, value_name = "COLUMN")]
    pub(in crate::cli) email: Option<String>,
    /// The column of the role, or of roles joined with commas
    #[arg(long, value_name = "COLUMN")]
    pub(in crate::cli) roles: Option<String>,
    /// The column that says whether an account may not log in, by 1, true, yes or on, or their opposites
    #[arg(long, value_name = "COLUMN")]
    pub(in crate::cli) disabled: Option<String>,
    /// The old program had made sure that the addresses are their owners'
    #[arg(long)]
    pub(in crate::cli) email_verified: bool,
    /// A role for every user whom no column gives one; may be repeated. Default: auth.default_roles
    #[arg(long = "role", value_name = "R")]
    pub(in crate::cli) default_roles: Vec<String>,
    /// Check every user and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// A file for what was refused and why, as CSV. Default: standard output
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) report: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct ImportSource {
    /// A PostgreSQL database: postgres://USER:PASSWORD@HOST/DATABASE, or the name of an environment
    /// variable that holds it
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) postgres: Option<String>,
    /// A SQLite database
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) sqlite: Option<PathBuf>,
    /// A CSV file with a line of column names; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) csv: Option<PathBuf>,
    /// A file with one JSON object a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) jsonl: Option<PathBuf>,
}
