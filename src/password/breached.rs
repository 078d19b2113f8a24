//! Passwords that thieves are known to have: a list of their hashes, cut short and kept in memory.
//!
//! Public lists give SHA-1 hashes. Of each the first 20 bits choose a bucket, and the 24 after them are its entry there:
//! 3 bytes a password, and 4 MiB for the buckets. A password that is in no list is taken for one as often as 44 bits of two hashes are
//! equal: of 100 million entries once in 176,000 times.
//!
//! The file: [`MAGIC`], the entries of all buckets in their order, the end of each bucket as a count of entries
//! (little-endian, 4 bytes), and the SHA-256 of all this.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use aws_lc_rs::digest::{
    Context, SHA1_FOR_LEGACY_USE_ONLY, SHA1_OUTPUT_LEN, SHA256, SHA256_OUTPUT_LEN, digest,
};
use thiserror::Error;

use crate::types::Secret;

/// What a file of this kind and version begins with.
const MAGIC: &[u8; 8] = b"agpwned1";

const BUCKETS: usize = 1 << 20;

/// Bytes of the ends of all buckets.
const INDEX_LEN: usize = BUCKETS * 4;

/// Bytes of an entry.
const ENTRY_LEN: usize = 3;

/// The longest line of a list of hashes, in bytes.
const MAX_LINE: u64 = 256;

/// Why a list of hashes is not taken, or its file not read.
#[derive(Debug, Error)]
pub enum BreachedError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file was made by something else, or is cut.
    #[error("it is no whole file of `authgate password-filter build`")]
    NotAFilter,
    /// The file has changed since it was made.
    #[error("its checksum is wrong: make it anew with `authgate password-filter build`")]
    Damaged,
    /// A line of the list.
    #[error(
        "line {0}: expected a SHA-1 hash in 40 hexadecimal digits, and perhaps `:` and how often it was seen"
    )]
    NotAHash(u64),
    /// The list is not sorted.
    #[error("line {0}: the hash is smaller than the one before; sort the list by its hashes")]
    OutOfOrder(u64),
    /// More entries than 32 bits count.
    #[error("the list has more than 4,294,967,295 hashes")]
    TooMany,
}

/// A file, and the list in it once it is needed.
pub struct BreachedFile {
    path: PathBuf,
    list: OnceLock<Breached>,
}

impl BreachedFile {
    /// The file at `path`, unread.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), list: OnceLock::new() }
    }

    /// Returns the list, and reads the file if that has not happened yet.
    ///
    /// # Errors
    /// As for [`Breached::load`].
    pub fn list(&self) -> Result<&Breached, BreachedError> {
        if let Some(list) = self.list.get() {
            return Ok(list);
        }
        let list = Breached::load(&self.path)?;
        Ok(self.list.get_or_init(|| list))
    }

    /// Returns what tells the list that was read from others.
    pub fn identity(&self) -> Option<u64> {
        self.list.get().map(Breached::identity)
    }
}

/// The list in memory, as it is in its file.
pub struct Breached {
    file: Vec<u8>,
}

/// Returns the hash by which public lists know a password: SHA-1, in upper-case hexadecimal digits.
pub fn public_hash(password: &Secret) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.expose().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

impl Breached {
    /// Reads a file whole.
    ///
    /// # Errors
    /// [`BreachedError::NotAFilter`], [`BreachedError::Damaged`] or what reading failed with.
    pub fn load(path: &Path) -> Result<Self, BreachedError> {
        let (mut file, len) = open(path)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(io::Error::other)?;
        file.rewind()?;
        file.take(len as u64).read_to_end(&mut bytes)?;
        let entries = entries_in(bytes.len() as u64)?;
        let (body, checksum) = bytes.split_at(bytes.len() - SHA256_OUTPUT_LEN);
        if digest(&SHA256, body).as_ref() != checksum {
            return Err(BreachedError::Damaged);
        }
        let list = Self { file: bytes };
        if !list.ends().is_sorted_by_key(|end| u32::from_le_bytes(*end)) || list.len() != entries as usize {
            return Err(BreachedError::NotAFilter);
        }
        Ok(list)
    }

    /// Returns what tells the list of a file from others, without reading it whole.
    ///
    /// # Errors
    /// As for [`Self::load`], but that damage is not seen.
    pub fn identify(path: &Path) -> Result<u64, BreachedError> {
        let (mut file, _) = open(path)?;
        let mut start_of_checksum = [0; 8];
        file.seek(SeekFrom::End(-(SHA256_OUTPUT_LEN as i64)))?;
        file.read_exact(&mut start_of_checksum)?;
        Ok(u64::from_le_bytes(start_of_checksum))
    }

    /// Returns what tells the list from others.
    pub fn identity(&self) -> u64 {
        let checksum = self.file[self.file.len() - SHA256_OUTPUT_LEN..].first_chunk();
        checksum.map_or(0, |start| u64::from_le_bytes(*start))
    }

    /// The end of each bucket, as it is in the file.
    fn ends(&self) -> &[[u8; 4]] {
        let until = self.file.len() - SHA256_OUTPUT_LEN;
        self.file[until - INDEX_LEN..until].as_chunks().0
    }

    fn end(&self, bucket: usize) -> usize {
        self.ends().get(bucket).map_or(0, |end| u32::from_le_bytes(*end) as usize)
    }

    /// Returns whether a password is in the list. Another one is taken for such as often as the module says.
    pub fn contains(&self, password: &Secret) -> bool {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.expose().as_bytes());
        let Some(short) = hash.as_ref().first_chunk().map(Short::of) else { return false };
        let start = short.bucket().checked_sub(1).map_or(0, |before| self.end(before));
        let (entries, _) = self.file[MAGIC.len()..].as_chunks::<ENTRY_LEN>();
        let bucket = entries.get(start..self.end(short.bucket())).unwrap_or_default();
        bucket.binary_search(&short.entry()).is_ok()
    }

    /// Returns how many hashes the list has.
    pub fn len(&self) -> usize {
        self.end(BUCKETS - 1)
    }

    /// Returns whether the list has no hash.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many entries a file of `len` bytes holds.
fn entries_in(len: u64) -> Result<u32, BreachedError> {
    let rest = len.checked_sub((MAGIC.len() + INDEX_LEN + SHA256_OUTPUT_LEN) as u64);
    let rest = rest.filter(|rest| rest % ENTRY_LEN as u64 == 0).ok_or(BreachedError::NotAFilter)?;
    u32::try_from(rest / ENTRY_LEN as u64).map_err(|_| BreachedError::NotAFilter)
}

/// Opens a file that begins as one of this kind and may be one by its length. Returns it with that.
fn open(path: &Path) -> Result<(File, usize), BreachedError> {
    // What is no file, such as a pipe, is not waited for.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let len = usize::try_from(metadata.len()).map_err(|_| BreachedError::NotAFilter)?;
    entries_in(metadata.len())?;
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if metadata.is_file() && magic == *MAGIC { Ok((file, len)) } else { Err(BreachedError::NotAFilter) }
}

/// The first 44 bits of a SHA-1 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Short(u64);

impl Short {
    fn of(hash: &[u8; 6]) -> Self {
        let [a, b, c, d, e, f] = *hash;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]) >> 4)
    }

    fn bucket(self) -> usize {
        (self.0 >> (8 * ENTRY_LEN)) as usize
    }

    fn entry(self) -> [u8; ENTRY_LEN] {
        let [.., a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }
}

/// What came of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Hashes that were taken.
    pub taken: u32,
    /// Hashes that were seen too seldom.
    pub rare: u64,
}

/// Makes a file from a list of hashes: a line for each, in hexadecimal, sorted, and perhaps `:` and how often it was seen; those seen less
/// often than `least` are left out. It needs some 4 MiB of memory, whatever the list's length.
///
/// # Errors
/// The first line that is wrong, or what reading or writing failed with.
pub fn build(mut list: impl BufRead, least: u64, out: impl Write) -> Result<Built, BreachedError> {
    let mut writer = Writer::new(out)?;
    let mut built = Built { taken: 0, rare: 0 };
    let mut line = Vec::with_capacity(64);
    for number in 1.. {
        line.clear();
        if list.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let (hash, seen) = parse_line(text).ok_or(BreachedError::NotAHash(number))?;
        if seen.is_some_and(|seen| seen < least) {
            built.rare += 1;
            continue;
        }
        if !writer.add(Short::of(&hash))? {
            return Err(BreachedError::OutOfOrder(number));
        }
    }
    built.taken = writer.finish()?;
    Ok(built)
}

/// The start of a hash, and how often it was seen if that is told.
fn parse_line(line: &[u8]) -> Option<([u8; 6], Option<u64>)> {
    let (hash, seen) = match line.iter().position(|byte| *byte == b':') {
        None => (line, None),
        Some(colon) => (&line[..colon], Some(&line[colon + 1..])),
    };
    if hash.len() != 2 * SHA1_OUTPUT_LEN || !hash.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let start = u64::from_str_radix(str::from_utf8(&hash[..12]).ok()?, 16).ok()?;
    let [_, _, start @ ..] = start.to_be_bytes();
    let seen = match seen {
        None => None,
        Some(text) => Some(str::from_utf8(text).ok()?.parse().ok()?),
    };
    Some((start, seen))
}

/// Writes entries as they come, and the rest at the end.
struct Writer<W> {
    out: W,
    checksum: Context,
    ends: Vec<u32>,
    count: u32,
    last: Option<Short>,
}

impl<W: Write> Writer<W> {
    fn new(out: W) -> io::Result<Self> {
        let ends = Vec::with_capacity(BUCKETS);
        let mut writer = Self { out, checksum: Context::new(&SHA256), ends, count: 0, last: None };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.out.write_all(bytes)
    }

    /// Takes the next hash. Returns whether it is in order.
    fn add(&mut self, short: Short) -> Result<bool, BreachedError> {
        match self.last {
            Some(last) if short < last => return Ok(false),
            Some(last) if short == last => return Ok(true),
            _ => {}
        }
        // The buckets before this one have ended.
        self.ends.resize(short.bucket(), self.count);
        self.count = self.count.checked_add(1).ok_or(BreachedError::TooMany)?;
        self.last = Some(short);
        self.write(&short.entry())?;
        Ok(true)
    }

    fn finish(mut self) -> io::Result<u32> {
        self.ends.resize(BUCKETS, self.count);
        for end in std::mem::take(&mut self.ends) {
            self.write(&end.to_le_bytes())?;
        }
        let checksum = self.checksum.finish();
        self.out.write_all(checksum.as_ref())?;
        self.out.flush()?;
        Ok(self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn hash_of(password: &str) -> String {
        let mut text = String::new();
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()).as_ref() {
            write!(text, "{byte:02X}").unwrap();
        }
        text
    }

    fn list_of(passwords: impl Iterator<Item = String>) -> String {
        let mut lines: Vec<String> =
            passwords.map(|password| format!("{}:3\r\n", hash_of(&password))).collect();
        lines.sort();
        lines.concat()
    }

    /// The file of a list, and what came of it.
    fn file_of(list: &str, least: u64) -> (tempfile::NamedTempFile, Built) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let built = build(list.as_bytes(), least, file.as_file()).unwrap();
        (file, built)
    }

    fn contains(breached: &Breached, password: &str) -> bool {
        breached.contains(&Secret::new(password))
    }

    #[test]
    fn every_listed_password_is_found_and_no_other() {
        let listed = |number: u32| format!("listed {number}");
        let (file, built) = file_of(&list_of((0..20_000).map(listed)), 0);
        assert_eq!(built, Built { taken: 20_000, rare: 0 });
        let breached = Breached::load(file.path()).unwrap();
        assert_eq!(breached.len(), 20_000);
        assert!((0..20_000).all(|number| contains(&breached, &listed(number))));
        // One in 880 million would be taken for one.
        assert!(!(0..20_000).any(|number| contains(&breached, &format!("free {number}"))));
    }

    #[test]
    fn the_first_and_the_last_bucket_are_found() {
        let ends = ["0000000000000000000000000000000000000000", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"];
        let (file, built) = file_of(&ends.join("\n"), 0);
        assert_eq!(built.taken, 2);
        let breached = Breached::load(file.path()).unwrap();
        assert_eq!([0, BUCKETS - 2, BUCKETS - 1].map(|bucket| breached.end(bucket)), [1, 1, 2]);
    }

    #[test]
    fn seldom_seen_ones_are_left_out() {
        let mut lines = [format!("{}:1", hash_of("rare one")), format!("{}:9", hash_of("frequent one"))];
        lines.sort();
        let (file, built) = file_of(&lines.join("\n"), 2);
        assert_eq!(built, Built { taken: 1, rare: 1 });
        let breached = Breached::load(file.path()).unwrap();
        assert!(contains(&breached, "frequent one") && !contains(&breached, "rare one"));
    }

    #[test]
    fn a_list_that_is_none_is_refused_by_the_line() {
        let good = "0000000000000000000000000000000000000001";
        let problem = |list: String| build(list.as_bytes(), 0, io::sink()).unwrap_err().to_string();
        for bad in ["password", &good[1..], &format!("{good}:often"), &format!("{good}:"), &"0".repeat(300)] {
            assert!(problem(format!("{good}\n{bad}\n")).starts_with("line 2: expected"), "{bad}");
        }
        let smaller = "F000000000000000000000000000000000000000\n0000000000000000000000000000000000000000\n";
        assert!(problem(smaller.to_owned()).starts_with("line 2: the hash is smaller"));
    }

    #[test]
    fn a_file_that_is_cut_changed_or_another_is_refused() {
        let (file, _) = file_of(&list_of((0..10).map(|number| number.to_string())), 0);
        let whole = std::fs::read(file.path()).unwrap();
        let identity = Breached::identify(file.path()).unwrap();
        assert_eq!(Breached::load(file.path()).unwrap().identity(), identity);
        let read = |bytes: &[u8]| {
            let other = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(other.path(), bytes).unwrap();
            Breached::load(other.path()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(read(&whole), "");
        assert!(read(&whole[..whole.len() - 1]).contains("no whole file"));
        assert!(read(&whole[..20]).contains("no whole file"));
        assert!(read(&whole[3..]).contains("no whole file"));
        for place in [9, 5_000, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(read(&changed).contains("checksum"), "byte {place}");
        }
        assert_ne!(identity, Breached::identify(file_of("", 0).0.path()).unwrap());
    }
}
