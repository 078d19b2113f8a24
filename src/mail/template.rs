//! The texts of mails: built in, or the operator's own.
//!
//! A text begins with a line `Subject: …` and an empty line. `{name}`, `{link}`, `{code}` and `{lifetime}` are
//! filled in, once; in HTML they are escaped first.

use std::{fs, path::Path, time::Duration};

use super::MailSetupError;

/// Larger ones are a mistake.
const MAX_BYTES: u64 = 256 << 10;

/// All that are filled in.
const PLACEHOLDERS: &[&str] = &["name", "link", "code", "lifetime"];

/// Those of a mail with a link.
const LINK: &[&str] = &["name", "link", "lifetime"];

/// Those of a mail with a code.
const CODE: &[&str] = &["name", "code", "lifetime"];

/// Those of a mail that only tells: it has no link that acts.
const NOTICE: &[&str] = &["name"];

/// Those of a mail to an address that nobody has shown to be the account's: whoever registers could have a stranger
/// read what he pleases.
const UNVERIFIED: &[&str] = &["link", "lifetime"];

/// The texts for one purpose.
#[derive(Debug, Clone)]
pub struct Template {
    subject: String,
    text: String,
    html: Option<String>,
}

/// The values of placeholders.
#[derive(Debug, Clone, Copy)]
pub struct Letter<'a> {
    /// The account's name.
    pub name: &'a str,
    /// The link.
    pub link: &'a str,
    /// The code.
    pub code: &'a str,
    /// How long the link lives.
    pub lifetime: Duration,
}

/// A mail's texts, filled in.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: Option<String>,
}

impl Template {
    /// The text to verify an address.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn verify_email(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "verify", include_str!("verify.txt"), UNVERIFIED)
    }

    /// The text to reset a password.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn reset_password(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "reset", include_str!("reset.txt"), LINK)
    }

    /// The text that tells of a changed password.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn password_changed(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "password-changed", include_str!("password-changed.txt"), NOTICE)
    }

    /// The text that tells of a changed address.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn address_changed(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "address-changed", include_str!("address-changed.txt"), NOTICE)
    }

    /// The text with a code to log in with.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn login_code(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "login-code", include_str!("login-code.txt"), CODE)
    }

    /// The text that tells of a second factor that was added or removed.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn factors_changed(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "factors-changed", include_str!("factors-changed.txt"), NOTICE)
    }

    /// The text that tells of a new API key.
    ///
    /// # Errors
    /// When the operator's own text cannot be used.
    pub fn key_added(folder: Option<&Path>) -> Result<Self, MailSetupError> {
        Self::load(folder, "key-added", include_str!("key-added.txt"), NOTICE)
    }

    fn load(
        folder: Option<&Path>,
        name: &str,
        built_in: &str,
        placeholders: &[&str],
    ) -> Result<Self, MailSetupError> {
        let own = |suffix: &str| match folder {
            Some(folder) => read(&folder.join(format!("{name}.{suffix}"))),
            None => Ok(None),
        };
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(MailSetupError::Template(
                folder.display().to_string(),
                "there is no such folder".to_owned(),
            ));
        }
        let text = own("txt")?.unwrap_or_else(|| built_in.to_owned());
        let file = format!("{name}.txt");
        let problem = |problem: &str| MailSetupError::Template(file.clone(), problem.to_owned());
        let (subject, text) = text
            .strip_prefix("Subject: ")
            .and_then(|rest| rest.split_once("\n"))
            .ok_or_else(|| problem("expected a first line `Subject: …`"))?;
        let template = Self {
            subject: subject.trim().to_owned(),
            text: text.trim_start().to_owned(),
            html: own("html")?,
        };
        if template.subject.contains(['{', '}']) || template.subject.is_empty() {
            return Err(problem("expected a subject without placeholders"));
        }
        for text in [Some(&template.text), template.html.as_ref()].into_iter().flatten() {
            check(text, placeholders).map_err(|found| problem(&found))?;
        }
        Ok(template)
    }

    pub(super) fn fill(&self, letter: &Letter<'_>) -> Filled {
        let lifetime = in_words(letter.lifetime);
        let plain = |name: &str| match name {
            "name" => letter.name.to_owned(),
            "link" => letter.link.to_owned(),
            "code" => letter.code.to_owned(),
            _ => lifetime.clone(),
        };
        Filled {
            subject: self.subject.clone(),
            text: substitute(&self.text, plain),
            html: self.html.as_ref().map(|html| substitute(html, |name| escape(&plain(name)))),
        }
    }
}

fn read(path: &Path) -> Result<Option<String>, MailSetupError> {
    let problem = |problem: String| MailSetupError::Template(path.display().to_string(), problem);
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(problem(error.to_string())),
        Ok(metadata) if metadata.len() > MAX_BYTES => return Err(problem("is over 256 KiB".to_owned())),
        Ok(_) => {}
    }
    Ok(Some(fs::read_to_string(path).map_err(|error| problem(error.to_string()))?.replace("\r\n", "\n")))
}

/// What stands between braces and looks like a placeholder: HTML brings braces of its own in styles.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(name)
    })
}

fn check(text: &str, placeholders: &[&str]) -> Result<(), String> {
    if let Some(unknown) = names(text).find(|name| !placeholders.contains(name)) {
        let legal: Vec<String> = placeholders.iter().map(|name| format!("{{{name}}}")).collect();
        return Err(format!("`{{{unknown}}}` is not for this mail; expected {}", legal.join(", ")));
    }
    let linked = !placeholders.contains(&"link") || names(text).any(|name| name == "link");
    if linked { Ok(()) } else { Err("expected {link} somewhere".to_owned()) }
}

fn substitute(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut filled = String::with_capacity(text.len() + 256);
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let found = PLACEHOLDERS
            .iter()
            .find(|name| rest[1..].strip_prefix(**name).is_some_and(|after| after.starts_with('}')));
        match found {
            Some(name) => {
                filled.push_str(&value(name));
                rest = &rest[name.len() + 2..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn in_words(span: Duration) -> String {
    let minutes = span.as_secs().div_ceil(60);
    let (count, unit) = match minutes {
        0..120 => (minutes, "minute"),
        120..2_880 => (minutes / 60, "hour"),
        _ => (minutes / 1_440, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(name: &str) -> Letter<'_> {
        Letter { name, link: "https://a/x?token=t&b", code: "123", lifetime: Duration::from_secs(1_800) }
    }

    #[test]
    fn the_built_in_texts_can_be_used() {
        for template in [Template::verify_email(None).unwrap(), Template::reset_password(None).unwrap()] {
            let filled = template.fill(&letter("alice"));
            assert!(filled.text.contains("https://a/x?token=t&b"));
            assert!(!filled.text.contains(['{', '}']), "{}", filled.text);
        }
    }

    #[test]
    fn what_is_filled_in_is_not_filled_in_again_and_is_escaped_in_html() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("reset.txt"), "Subject: Hi\n\n{name} {link} {lifetime}").unwrap();
        fs::write(folder.path().join("reset.html"), "<p style='a{b:c}'>{name} {link}</p>").unwrap();
        let filled = Template::reset_password(Some(folder.path())).unwrap().fill(&letter("{link}<b>"));
        assert_eq!(filled.text, "{link}<b> https://a/x?token=t&b 30 minutes");
        assert_eq!(filled.html.unwrap(), "<p style='a{b:c}'>{link}&lt;b&gt; https://a/x?token=t&amp;b</p>");
    }

    #[test]
    fn texts_that_cannot_work_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            "no subject {link}",
            "Subject: a\n\nno link",
            "Subject: a\n\n{link} {user}",
            "Subject: a\n\n{link} {name}",
            "Subject: {name}\n\n{link}",
        ] {
            fs::write(folder.path().join("verify.txt"), text).unwrap();
            assert!(Template::verify_email(Some(folder.path())).is_err(), "{text}");
        }
        assert!(Template::verify_email(Some(Path::new("/nowhere"))).is_err());
    }
}
