//! The hosts that a certificate is for.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

use x509_cert::{
    Certificate,
    der::{Tag, Tagged, asn1::Utf8StringRef, oid::db::rfc4519::COMMON_NAME},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::types::host::is_host;

/// The hosts that a certificate is for (RFC 9525).
#[derive(Debug, Default)]
pub struct Names {
    /// Names, in lower case.
    exact: HashSet<Box<str>>,
    /// What comes after `*.`.
    wildcards: HashSet<Box<str>>,
    addresses: HashSet<IpAddr>,
}

impl Names {
    /// Reads the names of a certificate. One without any alternative names has its common name, as old ones do.
    pub(super) fn of(certificate: &Certificate) -> Self {
        let mut names = Self::default();
        let certificate = &certificate.tbs_certificate;
        let alternatives = certificate.get::<SubjectAltName>().ok().flatten();
        for name in alternatives.into_iter().flat_map(|(_, SubjectAltName(names))| names) {
            match name {
                GeneralName::DnsName(name) => names.add(name.as_str()),
                GeneralName::IpAddress(bytes) => names.add_address(bytes.as_bytes()),
                _ => {}
            }
        }
        if names.is_empty() {
            let parts = certificate.subject.0.iter().flat_map(|part| part.0.iter());
            for part in parts.filter(|part| part.oid == COMMON_NAME && part.value.tag() == Tag::Utf8String) {
                if let Ok(name) = part.value.decode_as::<Utf8StringRef<'_>>() {
                    names.add(name.as_str());
                }
            }
        }
        names
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty() && self.addresses.is_empty()
    }

    fn add(&mut self, name: &str) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix("*.") {
            Some(rest) if is_host(rest) => drop(self.wildcards.insert(rest.into())),
            None if is_host(&name) => drop(self.exact.insert(name.into())),
            _ => {}
        }
    }

    fn add_address(&mut self, bytes: &[u8]) {
        if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
            self.addresses.insert(bytes.into());
        } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            self.addresses.insert(bytes.into());
        }
    }

    /// Returns whether the certificate is for a host, which is in lower case and without a port. A `*` stands for one label
    /// (RFC 9525, section 6.3).
    pub fn cover(&self, host: &str) -> bool {
        if self.exact.contains(host) {
            return true;
        }
        if !self.addresses.is_empty() {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let address =
                bare.map_or_else(|| host.parse().ok(), |bare| bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6));
            if let Some(address) = address {
                return self.addresses.contains(&address);
            }
        }
        host.split_once('.').is_some_and(|(_, rest)| self.wildcards.contains(rest))
    }

    /// Returns all names as they are asked for by SNI (RFC 6066, section 3), wildcards with their asterisk.
    pub(super) fn all(&self) -> impl Iterator<Item = Box<str>> {
        let wildcards = self.wildcards.iter().map(|rest| format!("*.{rest}").into());
        self.exact.iter().cloned().chain(wildcards)
    }

    /// Returns one of the names, by which people know the certificate: always the same one.
    pub(super) fn first(&self) -> String {
        let addresses = self.addresses.iter().map(|address| address.to_string().into());
        let rank = |name: &str| (name.starts_with('*'), name.parse::<IpAddr>().is_ok(), name.len());
        let first = self.all().chain(addresses).min_by_key(|name| (rank(name), name.clone()));
        first.map_or_else(|| "unnamed".to_owned(), String::from)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};
    use x509_cert::der::Decode;

    use super::*;

    fn names(params: CertificateParams) -> Names {
        let key = KeyPair::generate().unwrap();
        Names::of(&Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap())
    }

    #[test]
    fn a_certificate_covers_its_names_and_one_label_for_an_asterisk() {
        let alternatives = ["A.example.com", "*.b.example.com", "10.0.0.5", "::1"].map(str::to_owned);
        let names = names(CertificateParams::new(alternatives).unwrap());
        for host in ["a.example.com", "x.b.example.com", "10.0.0.5", "[::1]"] {
            assert!(names.cover(host), "{host}");
        }
        for host in ["example.com", "b.example.com", "x.y.b.example.com", "10.0.0.6", "[::2]", "5", ""] {
            assert!(!names.cover(host), "{host}");
        }
        assert_eq!(names.first(), "a.example.com");
    }

    #[test]
    fn the_common_name_counts_where_there_is_no_other() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "old.example.com");
        assert!(names(params).cover("old.example.com"));
        let mut params = CertificateParams::new(["new.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "old.example.com");
        assert!(!names(params).cover("old.example.com"));
    }
}
