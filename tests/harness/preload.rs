//! Libraries that change what a process sees of its system.

use std::path::PathBuf;

/// The path of a library below the system's folders for them.
pub(super) fn library(name: &str) -> PathBuf {
    let folders = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    ];
    let mut paths = folders.iter().map(|folder| PathBuf::from(folder).join(name));
    paths.find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is missing; `./run setup` installs it"))
}
