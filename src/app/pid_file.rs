//! The file that holds the id of the process that serves.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

/// The file, of a process that serves.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// A successor serves, and writes the file.
    given_up: AtomicBool,
}

/// What a file says, and what tells whether it was written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) pid: u32,
    inode: u64,
}

impl PidFile {
    /// The file at a path, which is written once the process serves.
    pub fn new(path: PathBuf) -> Self {
        Self { path, given_up: AtomicBool::new(false) }
    }

    /// Writes this process's id, as a new file in the place of what is there.
    pub(super) fn write(&self) {
        if let Err(error) = self.try_write() {
            tracing::error!(path = %self.path.display(), %error, "the file of the process id cannot be written");
        }
    }

    fn try_write(&self) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(name);
        fs::write(&fresh, format!("{}\n", std::process::id()))?;
        fs::rename(&fresh, &self.path)
    }

    /// Leaves the file to a successor. From here on this process does not remove it: the successor may put its own in
    /// its place between a look and the removal.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, SeqCst);
    }

    /// Takes the file back from a successor that has ended.
    pub(super) fn take_back(&self) {
        self.given_up.store(false, SeqCst);
    }

    /// Returns whether the file holds the id of another process. After the end of a successor that means that it had a successor of its
    /// own, since one that is told to end removes the file.
    pub(super) fn names_a_successor(&self) -> bool {
        read(&self.path).is_ok_and(|written| written.pid != std::process::id())
    }

    /// Removes the file, unless another process serves by now.
    pub(super) fn remove(&self) {
        let own = || read(&self.path).is_ok_and(|written| written.pid == std::process::id());
        if !self.given_up.load(SeqCst) && own() {
            let _ = fs::remove_file(&self.path);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_removed_at_the_end_of_a_process_that_has_no_successor() {
        let folder = tempfile::tempdir().unwrap();
        let file = PidFile::new(folder.path().join("pid"));
        file.write();
        // The successor has not written its own yet.
        file.give_up();
        file.remove();
        assert_eq!(read(&file.path).unwrap().pid, std::process::id());
        file.take_back();
        file.remove();
        assert!(!file.path.exists());
    }

    #[test]
    fn the_file_of_a_successor_stays_until_the_last_of_them_is_told_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = PidFile::new(folder.path().join("pid"));
        file.write();
        assert!(!file.names_a_successor());
        let other = std::process::id() + 1;
        fs::write(&file.path, format!("{other}\n")).unwrap();
        assert!(file.names_a_successor());
        file.take_back();
        file.remove();
        assert_eq!(read(&file.path).unwrap().pid, other);
        fs::remove_file(&file.path).unwrap();
        assert!(!file.names_a_successor());
    }
}
