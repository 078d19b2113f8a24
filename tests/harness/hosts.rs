//! Names of hosts that a test sets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::preload::library;

/// The names of hosts for a process that was started with [`Hosts::env`].
pub struct Hosts(PathBuf);

impl Hosts {
    /// A file without names, in this folder.
    pub fn new(folder: &Path) -> Self {
        let hosts = Self(folder.join("hosts"));
        hosts.set("");
        hosts
    }

    /// What a process is started with.
    pub fn env(&self) -> Vec<(String, String)> {
        let env = [
            ("LD_PRELOAD", library("libnss_wrapper.so").display().to_string()),
            ("NSS_WRAPPER_HOSTS", self.0.display().to_string()),
        ];
        env.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// Sets what they are: lines of an address and a name, as in `/etc/hosts`.
    pub fn set(&self, lines: &str) {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, lines).unwrap();
        fs::rename(&fresh, &self.0).unwrap();
    }
}
