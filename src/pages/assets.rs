//! The style sheet, the script of passkeys, and the logo.

use std::fs;

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::{file::read, style::style};
use crate::config;

/// The largest logo, in bytes.
const MAX_LOGO: u64 = 256 << 10;

/// How long they are kept by browsers: their addresses change with them.
const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// A file, as it is sent.
struct Asset {
    media_type: &'static str,
    bytes: Bytes,
    version: String,
}

impl Asset {
    fn new(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = digest::digest(&digest::SHA256, &bytes);
        Self { media_type, version: URL_SAFE_NO_PAD.encode(&hash.as_ref()[..6]), bytes }
    }

    fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.bytes.clone());
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, self.media_type),
            (header::CACHE_CONTROL, CACHE_CONTROL),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // An image may be a document that has scripts.
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// The files of a config's pages.
pub(super) struct Assets {
    style: Asset,
    script: Asset,
    logo: Option<Asset>,
}

impl Assets {
    /// Makes the style sheet, and reads an operator's own and the logo.
    ///
    /// # Errors
    /// Why a file cannot be used.
    pub(super) fn load(pages: &config::Pages) -> Result<Self, String> {
        let own = pages.folder.as_ref().map(|folder| read(&folder.join("style.css"))).transpose()?.flatten();
        let style = own.unwrap_or_else(|| style(&pages.accent));
        let logo = pages.logo.as_ref().map(|path| {
            let failed = |error: std::io::Error| format!("`logo`: {}: {error}", path.display());
            let metadata = fs::metadata(path).map_err(failed)?;
            if !metadata.is_file() || metadata.len() > MAX_LOGO {
                return Err(format!("`logo`: {}: expected at most {} KiB", path.display(), MAX_LOGO >> 10));
            }
            let media_type = match path.extension().and_then(|extension| extension.to_str()) {
                Some("svg") => "image/svg+xml",
                Some("webp") => "image/webp",
                _ => "image/png",
            };
            Ok(Asset::new(media_type, fs::read(path).map_err(failed)?))
        });
        let style = Asset::new("text/css; charset=utf-8", style);
        let script = Asset::new("text/javascript; charset=utf-8", include_str!("templates/passkey.js"));
        Ok(Self { style, script, logo: logo.transpose()? })
    }

    /// Returns the address of the style sheet below `ui`.
    pub(super) fn style_address(&self, ui: &str) -> String {
        format!("{ui}/style.css?v={}", self.style.version)
    }

    /// Returns the address of the logo below `ui`, if there is one.
    pub(super) fn logo_address(&self, ui: &str) -> Option<String> {
        self.logo.as_ref().map(|logo| format!("{ui}/logo?v={}", logo.version))
    }

    /// Returns the address of the script of passkeys below `ui`.
    pub(super) fn script_address(&self, ui: &str) -> String {
        format!("{ui}/passkey.js?v={}", self.script.version)
    }

    /// Returns the script of passkeys.
    pub(super) fn script_response(&self) -> Response<Bytes> {
        self.script.response()
    }

    /// Returns the style sheet.
    pub(super) fn style_response(&self) -> Response<Bytes> {
        self.style.response()
    }

    /// Returns the logo, if there is one.
    pub(super) fn logo_response(&self) -> Option<Response<Bytes>> {
        self.logo.as_ref().map(Asset::response)
    }

    #[cfg(test)]
    pub(super) fn style(&self) -> &[u8] {
        &self.style.bytes
    }
}
