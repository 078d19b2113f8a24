//! From a file to a checked config: positions, interpolation, types, meaning.

use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use serde_yaml::Value;

use super::{
    Config, ConfigError, ConfigErrors, Lookup, check,
    dotenv::{self, Variable},
    interpolate, position, raw,
};

/// A config is a page or a few; anything larger is a mistake.
const MAX_BYTES: u64 = 16 << 20;

/// A config that was accepted.
#[derive(Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Warnings about legal but unwise settings.
    pub warnings: Vec<String>,
    /// What tells it from a file that says something else.
    pub digest: u64,
}

/// Returns what tells the contents of a file from others.
pub fn digest_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Reads a config's file, which has to be one, and no larger than a config may be.
///
/// # Errors
/// When it cannot be read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // What is no file, such as a pipe, is not waited for.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is over 16 MiB"));
    }
    Ok(bytes)
}

/// Where something stands in a config, for errors that are found later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The path of the key.
    pub key: String,
}

impl Source {
    /// An error at this place.
    pub fn error(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line: self.line,
            key: self.key.clone(),
            found: None,
            problem: problem.into(),
        }
    }
}

/// Finds further errors in a config, which may have some already.
pub type Further<'a> = &'a dyn Fn(&Config) -> Vec<ConfigError>;

/// Reads the config at `path`, with the process's environment and `.env` beside the file.
///
/// # Errors
/// Every error that was found.
pub fn load_file(path: &Path, further: Further<'_>) -> Result<Loaded, ConfigErrors> {
    let name = path.display().to_string();
    let whole = |problem: String| {
        ConfigErrors(vec![ConfigError {
            file: name.clone(),
            line: 0,
            key: String::new(),
            found: None,
            problem,
        }])
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let bytes = read_file(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| whole("is not UTF-8".to_owned()))?;
    let text = text.trim_start_matches('\u{feff}');
    let (dotenv, warning) = read_dotenv(&folder.join(".env"))?;
    let lookup = |variable: &str| {
        std::env::var(variable)
            .ok()
            .or_else(|| dotenv.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone()))
    };
    let mut loaded = load(&name, text, folder, &lookup, further)?;
    loaded.warnings.extend(warning);
    Ok(loaded)
}

fn read_dotenv(path: &Path) -> Result<(Vec<Variable>, Option<String>), ConfigErrors> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok((Vec::new(), None));
    };
    let error = |line: usize, problem: &str| {
        ConfigErrors(vec![ConfigError {
            file: path.display().to_string(),
            line,
            key: String::new(),
            found: None,
            problem: problem.to_owned(),
        }])
    };
    let bytes = read_file(path).map_err(|problem| error(0, &format!("cannot be read: {problem}")))?;
    let text = String::from_utf8(bytes).map_err(|_| error(0, "is not UTF-8"))?;
    let variables = dotenv::parse(&text).map_err(|(line, problem)| error(line, problem))?;
    let open = metadata.permissions().mode() & 0o007 != 0;
    let warning =
        open.then(|| format!("{} may be read by others; `chmod 600` keeps its secrets", path.display()));
    Ok((variables, warning))
}

/// Reads a config from `text`. Relative paths in it start at `folder`.
///
/// # Errors
/// Every error that was found.
pub fn load(
    file: &str,
    text: &str,
    folder: &Path,
    lookup: Lookup<'_>,
    further: Further<'_>,
) -> Result<Loaded, ConfigErrors> {
    let at = |line: usize, key: String, found: Option<String>, problem: String| ConfigError {
        file: file.to_owned(),
        line,
        key,
        found,
        problem,
    };
    let positions = position::scan(text).map_err(|found| {
        ConfigErrors(found.into_iter().map(|(line, key, problem)| at(line, key, None, problem)).collect())
    })?;
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        ConfigErrors(vec![at(line, String::new(), None, error.to_string())])
    })?;
    let filled = interpolate::fill(&mut value, lookup).map_err(|found| {
        let error = |(key, problem): (String, String)| at(positions.line(&key), key, None, problem);
        ConfigErrors(found.into_iter().map(error).collect())
    })?;
    let document = Document { file, folder, positions: &positions, value: &value, filled: &filled };
    let raw: raw::Gateway = serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let key = error.path().to_string();
        let key = if key == "." { String::new() } else { key };
        let problem = error.into_inner().to_string();
        // The library's own messages quote the value; ours never do.
        let ours = problem.starts_with("expected")
            || problem.starts_with("unknown field")
            || problem.starts_with("missing field");
        let (problem, found) = if document.may_show(&key) || ours {
            // Under a name that is misspelt there may be a secret.
            let may_be_secret = problem.starts_with("unknown field")
                && ["auth", "store", "upstreams"].iter().any(|place| key.starts_with(place));
            (problem, document.found(&key).filter(|_| ours && !may_be_secret))
        } else {
            ("has the wrong type".to_owned(), None)
        };
        ConfigErrors(vec![at(positions.line(&key), key, found, problem)])
    })?;
    let loaded = check::check(raw, &document, further)?;
    Ok(Loaded { digest: digest_of(text.as_bytes()), ..loaded })
}

/// What the checks need to know of the file to name an error.
pub(super) struct Document<'a> {
    file: &'a str,
    pub(super) folder: &'a Path,
    positions: &'a position::Positions,
    value: &'a Value,
    filled: &'a HashSet<String>,
}

impl Document<'_> {
    /// Keys whose values are secret wherever they come from.
    const SECRET: &'static [&'static str] = &[
        "store.url",
        "auth.master_key",
        "auth.previous_master_key",
        "auth.signing.secret",
        "auth.signing.previous_secret",
        "auth.email.smtp.password",
    ];

    /// The place of `key`.
    pub(super) fn source(&self, key: &str) -> Source {
        Source { file: self.file.to_owned(), line: self.positions.line(key), key: key.to_owned() }
    }

    /// An error at `key`, with the value found there if it may be shown.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError { found: self.found(key), ..self.source(key).error(problem) }
    }

    fn may_show(&self, key: &str) -> bool {
        let inside = |path: &str| {
            path == key || path.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        // A header that a route sends may be a credential.
        let is_header = key.starts_with("routes[") && key.contains(".headers.") && !key.ends_with(']');
        !is_header
            && !key.ends_with(".client_secret")
            // What the address of a receiver holds may be all that keeps others from it.
            && !(key.starts_with("webhooks[") && (key.ends_with(".url") || key.ends_with(".secret")))
            && !Self::SECRET.iter().any(|secret| inside(secret))
            && !self.filled.iter().any(|path| inside(path))
    }

    fn found(&self, key: &str) -> Option<String> {
        if key.is_empty() || !self.may_show(key) {
            return None;
        }
        match self.at(key)? {
            Value::String(text) => Some(format!("`{}`", text.escape_debug())),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null => Some("nothing".to_owned()),
            _ => None,
        }
    }

    fn at(&self, key: &str) -> Option<&Value> {
        let mut value = self.value;
        for part in key.split('.') {
            let mut pieces = part.split('[');
            value = value.get(pieces.next()?)?;
            for index in pieces {
                value = value.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?;
            }
        }
        Some(value)
    }
}

#[cfg(test)]
#[path = "../../fuzz/config.rs"]
mod fuzz;
