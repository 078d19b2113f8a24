//! The composition root: what the parts are made of, and in which order they start and stop.

mod background;
mod control;
mod demo;
mod load;
mod master;
mod server;

pub use control::open_operator;
pub use demo::{DemoOptions, demo};
pub use load::{LoadedGateway, load, log_settings};
pub use master::{MasterFault, load_master_key};
pub use server::{ServeError, serve};
