//! What the commands that change accounts have in common.

use super::Refused;
use crate::{account::Actor, types::Roles};

/// Who sits at the command line, for the audit trail.
pub(super) fn operator_name() -> Actor {
    // SAFETY: a plain system call without arguments.
    let uid = unsafe { libc::getuid() };
    let name = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Actor {
        id: None,
        name: format!("{} (uid {uid})", name.unwrap_or_else(|| "system".to_owned())),
        address: Some(format!("command line on {}", host.trim())),
    }
}

pub(super) fn parse_roles(texts: &[String]) -> Result<Roles, Refused> {
    Roles::parse_all(texts).map_err(|error| Refused(error.to_string()))
}
