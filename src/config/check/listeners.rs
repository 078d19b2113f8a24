//! Where clients and operators connect: `listeners`, `admin`.

use std::net::SocketAddr;

use super::Check;
use crate::config::{
    CertificateFiles, ClientCertificates, ListenAddress, Listener, ListenerTls, TlsVersion, raw,
};

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: &[raw::Listener]) -> Vec<Listener> {
        if raw.is_empty() {
            self.error("listeners", "expected at least one `- address: IP:PORT`");
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, listener) in raw.iter().enumerate() {
            let key = format!("listeners[{index}].address");
            let address = self.listen_address(&key, &listener.address);
            if address.ip().is_none_or(|address| address.port() != 0)
                && listeners.iter().any(|other| other.address == address)
            {
                self.error(&key, "another listener has this address already");
            }
            let max_connections = listener.max_connections.map(|most| {
                let key = format!("listeners[{index}].max_connections");
                self.number(&key, Some(most), 1, (1, 10_000_000))
            });
            let redirect = listener.redirect.as_deref().and_then(|scheme| {
                let port = match scheme.strip_prefix("https") {
                    Some("") => Some(443),
                    Some(port) => port
                        .strip_prefix(':')
                        .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
                        .and_then(|port| port.parse().ok())
                        .filter(|port| *port > 0),
                    None => None,
                };
                if port.is_none() {
                    self.error(&format!("listeners[{index}].redirect"), "expected https, or https:PORT");
                }
                port
            });
            let tls = self.tls(&format!("listeners[{index}].tls"), listener.tls.as_ref());
            let ext_authz = listener.ext_authz.is_some_and(|ext_authz| ext_authz.0);
            let http2 = listener.http2.map_or(tls.is_some() || ext_authz, |http2| http2.0);
            if ext_authz && (!http2 || redirect.is_some()) {
                self.error(
                    &format!("listeners[{index}].ext_authz"),
                    "expected no `redirect` and no `http2: false` beside it: Envoy asks by HTTP/2",
                );
            }
            let proxy_protocol = listener.proxy_protocol.as_ref().map(|raw| {
                let key = format!("listeners[{index}].proxy_protocol.from");
                if raw.from.is_empty() {
                    self.error(&key, "expected the networks that it may come from, such as 10.0.0.0/8");
                }
                self.networks(&key, &raw.from)
            });
            listeners.push(Listener {
                address,
                max_connections,
                redirect,
                tls,
                http2,
                proxy_protocol,
                ext_authz,
            });
        }
        let serves_routes = |listener: &Listener| listener.redirect.is_none() && !listener.ext_authz;
        if !listeners.is_empty() && !listeners.iter().any(serves_routes) {
            self.warnings.push(
                "listeners: each of them has `redirect` or `ext_authz`, so no route is ever served"
                    .to_owned(),
            );
        }
        listeners
    }

    fn listen_address(&mut self, key: &str, text: &str) -> ListenAddress {
        let Some(name) = text.strip_prefix(ListenAddress::SYSTEMD) else {
            return ListenAddress::Ip(self.address(key, text));
        };
        // As systemd allows it in `FileDescriptorName`, without what could be read in two ways.
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@');
        if name.is_empty() || name.len() > 255 || !name.bytes().all(legal) {
            self.error(key, "expected systemd: and the name of a socket, such as systemd:public");
        }
        ListenAddress::Systemd(name.to_owned())
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin, listeners: &[SocketAddr]) -> Listener {
        let tls = self.tls("admin.tls", raw.tls.as_ref());
        let admin = match &raw.address {
            Some(text) => self.address("admin.address", text),
            None => SocketAddr::from(([127, 0, 0, 1], 9901)),
        };
        if !admin.ip().is_loopback() && tls.is_none() {
            if raw.insecure.is_some_and(|insecure| insecure.0) {
                self.warnings
                    .push("admin.insecure: administrators' tokens cross the network in the clear".to_owned());
            } else {
                self.error(
                    "admin.address",
                    "expected an address on loopback, such as 127.0.0.1:9901; for another, give `tls`, or set `insecure: true`",
                );
            }
        }
        if admin.port() != 0 && listeners.contains(&admin) {
            self.error("admin.address", "a public listener has this address");
        }
        for (index, host) in raw.hosts.iter().enumerate() {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if host.is_empty() || !host.bytes().all(legal) {
                let found =
                    format!("found `{host}`, expected a name without a port, such as authgate.default.svc");
                self.error(&format!("admin.hosts[{index}]"), found);
            }
        }
        Listener {
            address: ListenAddress::Ip(admin),
            max_connections: None,
            redirect: None,
            tls,
            http2: false,
            proxy_protocol: None,
            ext_authz: false,
        }
    }

    fn tls(&mut self, key: &str, raw: Option<&raw::ListenerTls>) -> Option<ListenerTls> {
        let raw = raw?;
        let one = (&raw.certificate, &raw.key);
        let acme = raw.acme.is_some_and(|acme| acme.0);
        let has_files = (!raw.certificates.is_empty(), !matches!(one, (None, None)));
        if has_files == (true, true) || (has_files == (false, false) && !acme) {
            self.error(
                key,
                "expected `certificate` and `key`, or `certificates` in place of both, or `acme: true`",
            );
        }
        let mut certificates = Vec::new();
        match one {
            (Some(certificate), Some(file)) => certificates.push(self.files(key, certificate, file)),
            (None, None) => {}
            (Some(_), None) => self.error(&format!("{key}.certificate"), "needs `key`, the key of its leaf"),
            (None, Some(_)) => self.error(&format!("{key}.key"), "needs `certificate`, which it belongs to"),
        }
        for (index, files) in raw.certificates.iter().enumerate() {
            let key = format!("{key}.certificates[{index}]");
            certificates.push(self.files(&key, &files.certificate, &files.key));
        }
        let min_version = match raw.min_version.as_deref() {
            None | Some("1.2") => TlsVersion::V1_2,
            Some("1.3") => TlsVersion::V1_3,
            Some(_) => {
                self.error(&format!("{key}.min_version"), "expected \"1.2\" or \"1.3\"");
                TlsVersion::V1_3
            }
        };
        let client_certificates = raw.client_certificates.as_ref().map(|raw| ClientCertificates {
            ca: self.document.folder.join(&raw.ca),
            required: raw.required.is_none_or(|required| required.0),
            forward: raw.forward.is_some_and(|forward| forward.0),
            source: self.document.source(&format!("{key}.client_certificates.ca")),
        });
        Some(ListenerTls { certificates, acme, min_version, client_certificates })
    }

    pub(super) fn files(&self, key: &str, certificate: &str, file: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.document.folder.join(certificate),
            key: self.document.folder.join(file),
            source: self.document.source(&format!("{key}.certificate")),
        }
    }
}
