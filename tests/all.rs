//! The tests, as one binary: the real gateway over real sockets, beside an upstream that records
//! what reaches it, and a PostgreSQL of their own.

mod harness;

mod accounts;
mod commands;
mod config;
mod credentials;
mod data_plane;
mod durability;
mod identity;
mod layers;
mod limits;
mod outages;
mod passwords;
mod paths;
mod refresh;
mod revocation;
mod routing;
mod secrets;
mod smuggling;
mod store;
mod upstreams;
