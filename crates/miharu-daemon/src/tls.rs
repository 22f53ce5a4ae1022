//! TLS for both listeners: one server certificate, client certificates asked for and judged per request.

pub(crate) mod authority;
pub(crate) mod identity;
pub(crate) mod member;
pub(crate) mod verifier;

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

pub(crate) use authority::{Authority, Purpose, Verdict};
pub(crate) use identity::{Identity, MEMBER_NAME};
use verifier::AnyClient;

/// The TLS side of the listeners.
#[derive(Debug)]
pub(crate) struct Tls {
    identity: Arc<Identity>,
    authority: Authority,
    /// Read at each handshake, replaced when `core.tls_minimum_version` changes.
    config: ArcSwap<ServerConfig>,
}

/// Which TLS versions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Versions {
    Tls13,
    Tls12And13,
}

impl Versions {
    pub(crate) fn of(settings: &miharu_store::Settings) -> Self {
        if settings.tls12 { Self::Tls12And13 } else { Self::Tls13 }
    }
}

impl Tls {
    pub(crate) fn new(identity: Arc<Identity>, versions: Versions) -> anyhow::Result<Self> {
        let config = ArcSwap::from(config(&identity, versions)?);
        let authority = Authority::open(identity.dir());
        Ok(Self { identity, authority, config })
    }

    /// The configuration for the next handshake.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.identity.reload_if_changed();
        self.config.load_full()
    }

    pub(crate) fn set_versions(&self, versions: Versions) -> anyhow::Result<()> {
        self.config.store(config(&self.identity, versions)?);
        Ok(())
    }

    /// Reads the files of both again.
    pub(crate) fn reload(&self) {
        self.identity.reload();
        self.authority.reload();
    }

    /// Who has to have signed the clients' certificates.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }
}

fn config(identity: &Arc<Identity>, versions: Versions) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[_] = match versions {
        Versions::Tls13 => &[&TLS13],
        Versions::Tls12And13 => &[&TLS13, &TLS12],
    };
    let verifier = Arc::new(AnyClient::new(provider.signature_verification_algorithms));
    let resolver: Arc<Identity> = Arc::clone(identity);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .context("TLS versions")?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
