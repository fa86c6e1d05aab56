//! One idea of whom to trust, for HTTP and for mail.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::sender::StartError;

/// The system's roots that can be used, and those of the settings.
pub(crate) fn roots(extra: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    let system = rustls_native_certs::load_native_certs().certs;
    system
        .into_iter()
        .chain(extra.iter().cloned())
        .filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok())
        .collect()
}

/// A client that checks certificate and name.
pub(crate) fn client(roots: &[CertificateDer<'static>]) -> Result<ClientConfig, StartError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}
