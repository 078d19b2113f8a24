//! An operator's own files.

use std::{fs, io, path::Path};

/// The largest one, in bytes.
const MAX_FILE: u64 = 256 << 10;

/// Reads a file of an operator; none if there is none of this name.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(format!("{}: expected a file of at most {} KiB", path.display(), MAX_FILE >> 10));
    }
    fs::read_to_string(path).map(Some).map_err(failed)
}
