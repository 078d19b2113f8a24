//! What can be typed about programs: API keys and clients.

use std::path::PathBuf;

use clap::Subcommand;

use super::ConfigFile;
use crate::config::Span;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ApiKeyCommand {
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
pub(in crate::cli) enum WebhookCommand {
    /// List the receivers that are told of events, and how they fare
    List {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Tell a receiver again of what happened, by the same message ids
    Replay {
        /// Its address, as the config has it
        url: String,
        /// Of how far back, such as 2d
        #[arg(long, value_name = "SPAN")]
        since: Span,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Ask a receiver again that has failed for a week, or wanted nothing any more
    Enable {
        /// Its address, as the config has it
        url: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClientCommand {
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
