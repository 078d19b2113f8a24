//! A browser without script: cookies, navigations, forms.

use std::collections::BTreeMap;

use super::{Gateway, PASSWORD, Response};

/// The origin that the gateway of [`with_pages`] is reached by.
pub const ORIGIN: &str = "https://app.example.com";

/// Lines of a config that has pages.
pub fn with_pages(more: &str) -> String {
    format!("public_url: {ORIGIN}\npages: {{name: Example}}\n{more}")
}

/// A browser that goes to one gateway at a time, by the name of its public address.
#[derive(Default, Clone)]
pub struct Browser {
    /// Its cookies, by name.
    pub cookies: BTreeMap<String, String>,
}

/// A form of a page.
#[derive(Debug, Clone)]
pub struct Form {
    pub action: String,
    pub hidden: Vec<(String, String)>,
}

impl Browser {
    /// The session's cookie.
    pub fn session(&self) -> Option<&str> {
        let names = ["__Host-authgate", "__Secure-authgate"];
        names.iter().find_map(|name| self.cookies.get(*name)).map(String::as_str)
    }

    fn keep(&mut self, response: &Response) {
        for (name, value) in &response.headers {
            if !name.eq_ignore_ascii_case("set-cookie") {
                continue;
            }
            let mut parts = value.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            let attributes: Vec<&str> = parts.collect();
            for needed in ["Secure", "HttpOnly", "SameSite=Lax"] {
                assert!(attributes.contains(&needed), "{value}: {attributes:?}");
            }
            if name.starts_with("__Host-") {
                assert!(attributes.contains(&"Path=/"), "{attributes:?}");
                assert!(
                    !attributes.iter().any(|attribute| attribute.starts_with("Domain")),
                    "{attributes:?}"
                );
            }
            if attributes.contains(&"Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Sends a request with the cookies and these headers.
    #[track_caller]
    pub fn send(
        &mut self,
        gateway: &Gateway,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &str,
    ) -> Response {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: app.example.com\r\n");
        if !cookies.is_empty() {
            text += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        for header in headers {
            text += &format!("{header}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            text += &format!(
                "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        let response = gateway.client().send(format!("{text}\r\n{body}")).response();
        self.keep(&response);
        response
    }

    /// Goes to a page by its address.
    #[track_caller]
    pub fn go(&mut self, gateway: &Gateway, path: &str) -> Response {
        self.send(gateway, "GET", path, &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none"], "")
    }

    /// What a script of our own pages fetches.
    #[track_caller]
    pub fn fetch(&mut self, gateway: &Gateway, method: &str, path: &str) -> Response {
        self.send(gateway, method, path, &["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"], "")
    }

    /// Fills in a form and sends it.
    #[track_caller]
    pub fn submit(&mut self, gateway: &Gateway, form: &Form, fields: &[(&str, &str)]) -> Response {
        self.submit_from(gateway, form, fields, "same-origin")
    }

    /// The same, from a page of this site.
    #[track_caller]
    pub fn submit_from(
        &mut self,
        gateway: &Gateway,
        form: &Form,
        fields: &[(&str, &str)],
        site: &str,
    ) -> Response {
        let hidden = form.hidden.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let pairs: Vec<(&str, &str)> = hidden.chain(fields.iter().copied()).collect();
        let site = format!("Sec-Fetch-Site: {site}");
        let headers = [site.as_str(), "Sec-Fetch-Mode: navigate"];
        self.send(gateway, "POST", &form.action, &headers, &encoded(&pairs))
    }

    /// Makes an account by the page and is signed in.
    #[track_caller]
    pub fn register(gateway: &Gateway, name: &str) -> Self {
        let mut browser = Self::default();
        let form = only_form(&browser.go(gateway, "/auth/ui/register"));
        let response = browser.submit(gateway, &form, &[("username", name), ("password", PASSWORD)]);
        assert_eq!(response.status, 303, "{response:?}");
        assert!(browser.session().is_some());
        browser
    }

    /// Signs in by the page, in a browser of its own.
    #[track_caller]
    pub fn sign_in(gateway: &Gateway, name: &str) -> Self {
        let mut browser = Self::default();
        let form = only_form(&browser.go(gateway, "/auth/ui/login"));
        let response = browser.submit(gateway, &form, &[("username", name), ("password", PASSWORD)]);
        assert_eq!(response.status, 303, "{response:?}");
        browser
    }

    /// Signs out by the page.
    #[track_caller]
    pub fn sign_out(&mut self, gateway: &Gateway) {
        let form = only_form(&self.go(gateway, "/auth/ui/logout"));
        let response = self.submit(gateway, &form, &[]);
        assert_eq!(response.status, 200, "{response:?}");
        assert!(self.session().is_none());
    }
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect()
    };
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let rest = tag.split_once(&format!(" {name}=\""))?.1;
    Some(unescaped(rest.split_once('"')?.0))
}

/// The forms of a page.
pub fn forms(response: &Response) -> Vec<Form> {
    let text = response.text();
    let parts = text.split("<form ").skip(1).map(|part| part.split("</form>").next().unwrap().to_owned());
    parts
        .map(|part| Form {
            action: attribute(&format!(" {part}"), "action").expect("an action"),
            hidden: part
                .split("<input ")
                .skip(1)
                .map(|input| format!(" {}", input.split('>').next().unwrap()))
                .filter(|input| attribute(input, "type").as_deref() == Some("hidden"))
                .map(|input| (attribute(&input, "name").unwrap(), attribute(&input, "value").unwrap()))
                .collect(),
        })
        .collect()
}

/// The only form of a page.
#[track_caller]
pub fn only_form(response: &Response) -> Form {
    let mut forms = forms(response);
    assert_eq!(forms.len(), 1, "{response:?}");
    forms.remove(0)
}
