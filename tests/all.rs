//! The tests, as one binary: the real gateway over real sockets, beside an upstream that records
//! what reaches it, and a PostgreSQL of their own.

mod harness;

mod accounts;
mod admin_api;
mod audit;
mod callers;
mod clocks;
mod clusters;
mod commands;
mod config;
mod cors;
mod credentials;
mod data_plane;
mod database_tls;
mod described;
mod doubt;
mod durability;
mod gateways;
mod http;
mod identity;
mod imports;
mod isolation;
mod keys;
mod layers;
mod limits;
mod mails;
mod model;
mod names;
mod outages;
mod passwords;
mod paths;
mod refresh;
mod resting;
mod restored;
mod revocation;
mod routing;
mod secrets;
mod seeds;
mod smuggling;
mod snapshots;
mod store;
mod streams;
mod throttling;
mod tls;
mod upstreams;
