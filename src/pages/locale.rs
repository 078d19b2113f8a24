//! The texts of the pages in several languages, by Fluent.

use std::{borrow::Cow, path::Path};

use fluent_bundle::{FluentArgs, FluentResource, concurrent::FluentBundle};
use fluent_langneg::{NegotiationStrategy, accepted_languages, negotiate_languages};
use http::HeaderValue;
use unic_langid::LanguageIdentifier;

use super::file::read;

/// The most bytes of `Accept-Language` that are read.
const MAX_HEADER: usize = 200;

/// The texts that are built in.
const BUILT_IN: [(&str, &str); 2] =
    [("en", include_str!("locales/en.ftl")), ("de", include_str!("locales/de.ftl"))];

/// The texts of one language.
pub(super) struct Locale {
    tag: LanguageIdentifier,
    bundle: FluentBundle<FluentResource>,
}

impl AsRef<LanguageIdentifier> for Locale {
    fn as_ref(&self) -> &LanguageIdentifier {
        &self.tag
    }
}

impl PartialEq for Locale {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

impl Locale {
    fn load(tag: &str, folder: Option<&Path>) -> Result<Self, String> {
        let identifier: LanguageIdentifier =
            tag.parse().map_err(|_| format!("`languages`: {tag} is not a language"))?;
        let mut bundle = FluentBundle::new_concurrent(vec![identifier.clone()]);
        // Marks around what is filled in would show in titles and attributes.
        bundle.set_use_isolating(false);
        let built_in = BUILT_IN.iter().find(|(known, _)| *known == tag).map(|(_, text)| (*text).to_owned());
        // What a translation lacks is in English.
        let texts = [Some(BUILT_IN[0].1.to_owned()), built_in, own(tag, folder)?];
        for text in texts.into_iter().flatten() {
            let resource = FluentResource::try_new(text).map_err(|(resource, errors)| {
                let error = errors.first();
                let before = error.and_then(|error| resource.source().get(..error.pos.start));
                let line = before.unwrap_or_default().matches('\n').count() + 1;
                let what = error.map(|error| error.kind.to_string()).unwrap_or_default();
                format!("`folder`: {tag}.ftl:{line}: {what}")
            })?;
            bundle.add_resource_overriding(resource);
        }
        Ok(Self { tag: identifier, bundle })
    }

    /// Returns the language's tag.
    pub(super) fn tag(&self) -> String {
        self.tag.to_string()
    }

    /// Returns a text; its key if there is none.
    pub(super) fn text<'a>(&'a self, key: &'a str, values: Option<&FluentArgs<'_>>) -> Cow<'a, str> {
        let pattern = self.bundle.get_message(key).and_then(|message| message.value());
        let Some(pattern) = pattern else { return Cow::Borrowed(key) };
        // A value that is missing is shown as its name.
        self.bundle.format_pattern(pattern, values, &mut Vec::new())
    }

    /// Returns whether there is a text for a key.
    #[cfg(test)]
    fn has(&self, key: &str) -> bool {
        self.bundle.has_message(key)
    }
}

/// Reads an operator's own texts of a language.
fn own(tag: &str, folder: Option<&Path>) -> Result<Option<String>, String> {
    let Some(folder) = folder else { return Ok(None) };
    let text = read(&folder.join(format!("{tag}.ftl")))?;
    let is_built_in = BUILT_IN.iter().any(|(known, _)| *known == tag);
    if text.is_none() && !is_built_in {
        return Err(format!("`languages`: {tag} has no texts, {tag}.ftl is missing in {}", folder.display()));
    }
    Ok(text)
}

/// The languages that are offered.
pub(super) struct Locales(Vec<Locale>);

impl Locales {
    /// Loads the languages of a config.
    ///
    /// # Errors
    /// What is wrong with an operator's own texts.
    pub(super) fn load(tags: &[String], folder: Option<&Path>) -> Result<Self, String> {
        let locales = tags.iter().map(|tag| Locale::load(tag, folder)).collect::<Result<Vec<_>, _>>()?;
        if locales.is_empty() {
            Err("`languages`: expected one at least".to_owned())
        } else {
            Ok(Self(locales))
        }
    }

    /// Returns the number of the language that `Accept-Language` prefers (RFC 9110, section 12.5.4), or of the first one.
    pub(super) fn preferred_index(&self, header: Option<&HeaderValue>) -> usize {
        let wanted = header.and_then(|value| value.to_str().ok()).filter(|value| value.len() <= MAX_HEADER);
        let Some(wanted) = wanted else { return 0 };
        let wanted = accepted_languages::parse(&by_weight(wanted));
        let found = negotiate_languages(&wanted, &self.0, None, NegotiationStrategy::Lookup);
        let number = |found: &&Locale| self.0.iter().position(|locale| locale == *found);
        found.first().and_then(number).unwrap_or(0)
    }

    /// Returns all of them.
    pub(super) fn all(&self) -> &[Locale] {
        &self.0
    }
}

/// Returns the languages of `Accept-Language`, those that are wanted most first, without their weights (RFC 9110, section 12.4.2), and without
/// those that are not wanted.
fn by_weight(header: &str) -> String {
    let weigh = |part: &'_ str| {
        let (language, parameters) = part.split_once(';').unwrap_or((part, ""));
        let weight = parameters.trim().strip_prefix("q=").or_else(|| parameters.trim().strip_prefix("Q="));
        let weight = weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(0.0));
        (language.trim().to_owned(), weight)
    };
    let mut languages: Vec<(String, f32)> = header.split(',').map(weigh).collect();
    languages.retain(|(language, weight)| !language.is_empty() && *weight > 0.0);
    languages.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    languages.into_iter().map(|(language, _)| language).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_language_is_chosen_and_the_first_one_where_there_is_none() {
        let tags = ["en", "de"].map(str::to_owned);
        let locales = Locales::load(&tags, None).unwrap();
        for (header, tag) in [
            (None, "en"),
            (Some("de-AT,de;q=0.9,en;q=0.8"), "de"),
            (Some("fr, de;q=0.5"), "de"),
            (Some("fr"), "en"),
            (Some("*"), "en"),
            (Some("de;;;,,"), "de"),
            (Some("en;q=0.5,de;q=0.9"), "de"),
            (Some("de;q=0,en"), "en"),
            (Some("de;q=0.1, en;q=1.0"), "en"),
            (Some("de; q=0.1, en ; q=nan"), "de"),
            (Some(""), "en"),
        ] {
            let header = header.map(HeaderValue::from_static);
            assert_eq!(locales.0[locales.preferred_index(header.as_ref())].tag(), tag, "{header:?}");
        }
    }

    #[test]
    fn both_languages_have_the_same_texts() {
        let keys = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with(['#', ' ', '}']));
            lines.filter_map(|line| line.split_once(" =")).map(|(key, _)| key.to_owned()).collect()
        };
        assert_eq!(keys(BUILT_IN[0].1), keys(BUILT_IN[1].1));
        let locale = Locale::load("de", None).unwrap();
        assert!(keys(BUILT_IN[0].1).iter().all(|key| locale.has(key)));
        let mut values = FluentArgs::new();
        values.set("seconds", 1);
        assert!(locale.text("error-too-many-requests", Some(&values)).contains("einer Sekunde"));
    }
}
