//! Templates: ours, or an operator's in their place. What others have written is escaped by the engine, always.

use std::{path::Path, sync::Arc};

use fluent_bundle::{FluentArgs, FluentValue};
use minijinja::{
    AutoEscape, Environment, Output, State, UndefinedBehavior, Value, context,
    value::{Kwargs, Serde},
};
use serde::Serialize;

use super::{
    file::read,
    locale::{Locale, Locales},
};

/// Our templates.
const BUILT_IN: &[(&str, &str)] = &[
    ("base.html", include_str!("templates/base.html")),
    ("macros.html", include_str!("templates/macros.html")),
    ("login.html", include_str!("templates/login.html")),
    ("register.html", include_str!("templates/register.html")),
    ("forgot.html", include_str!("templates/forgot.html")),
    ("reset.html", include_str!("templates/reset.html")),
    ("verify.html", include_str!("templates/verify.html")),
    ("factor.html", include_str!("templates/factor.html")),
    ("prove.html", include_str!("templates/prove.html")),
    ("logout.html", include_str!("templates/logout.html")),
    ("account.html", include_str!("templates/account.html")),
    ("change.html", include_str!("templates/change.html")),
    ("keys.html", include_str!("templates/keys.html")),
    ("sessions.html", include_str!("templates/sessions.html")),
    ("factors.html", include_str!("templates/factors.html")),
    ("providers.html", include_str!("templates/providers.html")),
    ("new-factor.html", include_str!("templates/new-factor.html")),
    ("recovery-codes.html", include_str!("templates/recovery-codes.html")),
    ("message.html", include_str!("templates/message.html")),
];

/// What all pages know of the site.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Site {
    pub(super) name: String,
    /// Where the pages are.
    pub(super) ui: String,
    /// The address of the style sheet.
    pub(super) style: String,
    /// The address of the script of passkeys.
    pub(super) script: String,
    /// The address of the logo, if there is one.
    pub(super) logo: Option<String>,
}

/// A page to be rendered.
pub(super) trait Page: Serialize {
    /// The template.
    const TEMPLATE: &'static str;

    /// The key of the title.
    fn title(&self) -> String;

    /// Whether it has the script of passkeys.
    fn has_script(&self) -> bool {
        false
    }
}

/// The templates and texts of a config.
pub(super) struct Templates {
    environment: Environment<'static>,
    pub(super) locales: Arc<Locales>,
    pub(super) site: Site,
}

impl Templates {
    /// Loads the templates, and those of an operator in the place of ours.
    ///
    /// # Errors
    /// What is wrong with a file of the operator.
    pub(super) fn load(folder: Option<&Path>, locales: Locales, site: Site) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_formatter(escape);
        // A template that asks for what is not there is a mistake in most places, and never a crash.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(format!("`folder`: {} is no folder", folder.display()));
        }
        for (name, text) in BUILT_IN {
            let own = folder.map(|folder| read(&folder.join(name))).transpose()?.flatten();
            let text = own.unwrap_or_else(|| (*text).to_owned());
            environment
                .add_template_owned(*name, text)
                .map_err(|error| format!("`folder`: {name}: {error}"))?;
        }
        Ok(Self { environment, locales: Arc::new(locales), site })
    }

    /// Renders a page.
    ///
    /// # Errors
    /// What an operator's template does wrong.
    pub(super) fn render<P: Page>(&self, page: &P, language: usize) -> Result<String, minijinja::Error> {
        let locales = self.locales.clone();
        let tag = locales.all()[language].tag();
        let text = move |key: String, values: Kwargs| -> Result<String, minijinja::Error> {
            text(&locales.all()[language], &key, &values)
        };
        let context = context! {
            t => Value::from_function(text),
            lang => tag,
            title => page.title(),
            script => page.has_script(),
            site => Value::from(Serde(&self.site)),
            page => Value::from(Serde(page)),
        };
        self.environment.get_template(P::TEMPLATE)?.render(context)
    }
}

/// Writes a value, escaped for text and for attributes in quotes. Unlike the engine's own escaping it leaves `/` as it is, so that addresses
/// can be read.
fn escape(out: &mut Output, _: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(());
    }
    let text = value.to_string();
    if value.is_safe() {
        return out.write_str(&text).map_err(Into::into);
    }
    let mut begin = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        out.write_str(&text[begin..at])?;
        out.write_str(escaped)?;
        begin = at + 1;
    }
    out.write_str(&text[begin..]).map_err(Into::into)
}

fn text(locale: &Locale, key: &str, values: &Kwargs) -> Result<String, minijinja::Error> {
    let mut given = FluentArgs::new();
    let names: Vec<String> = values.args().map(str::to_owned).collect();
    for name in names {
        let value: Value = values.get(&name)?;
        let value = match i64::try_from(value.clone()) {
            Ok(number) => FluentValue::from(number),
            Err(_) => FluentValue::from(value.to_string()),
        };
        given.set(name, value);
    }
    Ok(locale.text(key, Some(&given)).into_owned())
}
