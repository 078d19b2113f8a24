//! The file that holds the id of the process that serves.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The file, of a process that serves.
#[derive(Debug)]
pub struct PidFile(PathBuf);

/// What a file says, and what tells whether it was written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) pid: u32,
    inode: u64,
}

impl PidFile {
    /// The file at a path, which is written once the process serves.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Writes this process's id, as a new file in the place of what is there.
    pub(super) fn write(&self) {
        if let Err(error) = self.try_write() {
            tracing::error!(path = %self.0.display(), %error, "the file of the process id cannot be written");
        }
    }

    fn try_write(&self) -> io::Result<()> {
        let mut name = self.0.clone().into_os_string();
        name.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(name);
        fs::write(&fresh, format!("{}\n", std::process::id()))?;
        fs::rename(&fresh, &self.0)
    }

    /// Returns whether it names a process other than `pid`, which serves in its place.
    pub(super) fn names_another_than(&self, pid: u32) -> bool {
        read(&self.0).is_ok_and(|written| written.pid != pid && written.pid != std::process::id())
    }

    /// Removes the file, unless another process serves by now.
    pub(super) fn remove(&self) {
        if read(&self.0).is_ok_and(|written| written.pid == std::process::id()) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Reads a file.
///
/// # Errors
/// In words for whoever typed its name.
pub(super) fn read(path: &Path) -> Result<Written, String> {
    let error = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let inode = fs::metadata(path).map_err(|found| error(&found))?.ino();
    let text = fs::read_to_string(path).map_err(|found| error(&found))?;
    let pid = text.trim().parse().map_err(|_| error(&"no process id"))?;
    Ok(Written { pid, inode })
}
