//! Certificates by ACME (RFC 8555), through the store, for any number of gateways.
//!
//! What is required:
//! - An order runs under a lease, on one gateway; a gateway that ends in the midst of one is followed by another, which goes on with it.
//! - Any gateway answers an authority's question, and shows a new certificate within seconds: all read both from the store.
//! - Private keys and the account lie in the store wrapped with the master key.
//! - Names come from the config, never from a client.
//! - A certificate serves until its end, whatever becomes of its renewal.

mod certificates;
mod client;
mod order;
mod schedule;
mod worker;

pub use certificates::IssuedCertificates;
pub use worker::Worker;
