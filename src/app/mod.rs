//! The composition root: what the parts are made of, and in which order they start and stop.

mod assemble;
mod background;
mod builtin_calls;
mod certificates;
mod collection;
mod control;
mod decision;
mod demo;
mod error;
mod foundation;
mod inheritance;
mod listeners;
mod load;
mod operator;
mod pid_file;
mod process;
mod reload;
mod sample;
mod server;
mod systemd;
mod upgrade;
mod vault;

pub use collection::collection;
pub use decision::{Verdict, decide, failed_tests};
pub use demo::{DemoOptions, demo};
pub use error::StartError;
pub use inheritance::{InheritError, Inherited};
pub use load::{LoadedGateway, load, log_settings};
pub use operator::{open_operator, open_store};
pub use pid_file::PidFile;
pub use server::{ServeError, Start, serve};
pub use upgrade::request_upgrade;
pub use vault::{Vault, VaultError, open_vault};
