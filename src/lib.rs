//! authgate: an authentication reverse-proxy gateway.
//!
//! The layers, from the top: `cli`, `app` (which puts everything together), the edges `gateway`,
//! `auth_api`, `pages` and `admin`, what these share `web`, the decision `access`, the use cases `account`, the mirror
//! `revocation`, what is asked of other issuers and of certificate authorities `oidc` and `acme`, the means `store`, `password`, `token`, `factor`, `route`, `limit`, `mail`, `otlp` and `upstream`,
//! then `http_client`, then `http2` and `tls`, then `config`, `telemetry`, `openapi` and `stream`, then `types`, `clock`, `error` and `memory`. Imports go downward only.

pub mod access;
pub mod account;
pub mod acme;
pub mod admin;
pub mod app;
pub mod auth_api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod factor;
pub mod gateway;
pub mod http2;
pub mod http_client;
pub mod limit;
pub mod mail;
pub mod memory;
pub mod oidc;
pub mod openapi;
pub mod otlp;
pub mod pages;
pub mod password;
pub mod priority;
pub mod revocation;
pub mod route;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod types;
pub mod upstream;
pub mod web;

#[cfg(test)]
#[path = "../fuzz/words.rs"]
mod fuzz_words;
