//! What the authority has revoked: `ca.crl`.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

/// The certificates that are revoked.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    /// The issuer's name, DER, and the serial number.
    entries: HashSet<(Vec<u8>, Vec<u8>)>,
    /// When the first of the lists should have been replaced.
    next_update: Option<ASN1Time>,
}

impl Revoked {
    /// Reads revocation lists, one in DER or several in PEM, each of which one of these authorities must have signed.
    pub(crate) fn read(text: &[u8], authorities: &[&[u8]]) -> anyhow::Result<Self> {
        let lists: Vec<Vec<u8>> = if text.first() == Some(&0x30) {
            vec![text.to_vec()]
        } else {
            let mut lists = Vec::new();
            for pem in Pem::iter_from_buffer(text) {
                let pem = pem.context("broken PEM")?;
                ensure!(pem.label == "X509 CRL", "a {} where revocation lists are expected", pem.label);
                lists.push(pem.contents);
            }
            lists
        };
        ensure!(!lists.is_empty(), "no revocation list in PEM or DER form");
        let mut revoked = Self::default();
        for list in lists {
            revoked.add(&list, authorities)?;
        }
        Ok(revoked)
    }

    fn add(&mut self, der: &[u8], authorities: &[&[u8]]) -> anyhow::Result<()> {
        let (rest, list) = CertificateRevocationList::from_der(der).context("broken revocation list")?;
        ensure!(rest.is_empty(), "unexpected data after a revocation list");
        // A list of changes alone, or of one kind of certificates, does not tell all that is revoked.
        ensure!(
            !list
                .extensions()
                .iter()
                .any(|extension| extension.critical && is_partial(extension.parsed_extension())),
            "the revocation list is only a part of one"
        );
        let issuer = list.issuer().as_raw();
        let signed = authorities.iter().any(|authority| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
                authority.subject().as_raw() == issuer
                    && list.verify_signature(authority.public_key()).is_ok()
            })
        });
        ensure!(signed, "the revocation list of '{}' is not signed by server.ca", list.issuer());
        for entry in list.iter_revoked_certificates() {
            self.entries.insert((issuer.to_vec(), entry.raw_serial().to_vec()));
        }
        self.next_update = match (self.next_update, list.next_update()) {
            (Some(first), Some(other)) => Some(first.min(other)),
            (first, other) => first.or(other),
        };
        Ok(())
    }

    pub(crate) fn contains(&self, issuer: &[u8], serial: &[u8]) -> bool {
        !self.entries.is_empty() && self.entries.contains(&(issuer.to_vec(), serial.to_vec()))
    }

    pub(super) fn is_overdue(&self, now: ASN1Time) -> bool {
        self.next_update.is_some_and(|due| now > due)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn is_partial(extension: &ParsedExtension<'_>) -> bool {
    !matches!(extension, ParsedExtension::CRLNumber(_) | ParsedExtension::AuthorityKeyIdentifier(_))
}
