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
mod listeners;
mod load;
mod operator;
mod process;
mod reload;
mod sample;
mod server;
mod vault;

pub use collection::collection;
pub use decision::{Verdict, decide, failed_tests};
pub use demo::{DemoOptions, demo};
pub use error::StartError;
pub use load::{LoadedGateway, load, log_settings};
pub use operator::{open_operator, open_store};
pub use server::{ServeError, serve};
pub use vault::{Vault, VaultError, open_vault};
