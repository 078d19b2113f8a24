//! A wall clock that a test sets.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::preload::library;

/// The wall clock of a process that was started with [`Faketime::env`].
pub struct Faketime(PathBuf);

impl Faketime {
    /// A clock whose file lies in this folder.
    pub fn new(folder: &Path) -> Self {
        let clock = Self(folder.join("offset"));
        clock.set("+0");
        clock
    }

    /// What a process is started with.
    pub fn env(&self) -> [(String, String); 4] {
        [
            ("LD_PRELOAD", library("faketime/libfaketimeMT.so.1").display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Sets it: `+90` is a minute and a half ahead.
    pub fn set(&self, offset: &str) {
        fs::write(&self.0, offset).unwrap();
    }
}
