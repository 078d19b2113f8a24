//! The composition root: what the parts are made of, and in which order they start and stop.

mod background;
mod collection;
mod control;
mod demo;
mod load;
mod server;
mod vault;

pub use collection::collection;
pub use control::{open_operator, open_store};
pub use demo::{DemoOptions, demo};
pub use load::{LoadedGateway, load, log_settings};
pub use server::{ServeError, serve};
pub use vault::{Vault, VaultFault, open_vault};
