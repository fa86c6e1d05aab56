//! Connection settings, TLS and the limits that every connection carries.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::StorageError;

/// What a connection is for; each kind has its own `statement_timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Requests of storefront and admin routes: statements of at most 2 s.
    Serve,
    /// Reports and recounts that a person waits for: at most 10 s.
    Report,
    /// Folding, retention and other background work: at most 30 s.
    Work,
    /// Uploads by people: at most 2 minutes.
    Upload,
    /// Migrations, rebuilds and exports: no limit on a statement.
    Maintain,
}

impl Purpose {
    const fn statement_timeout_ms(self) -> u32 {
        match self {
            Self::Serve => 2_000,
            Self::Report => 10_000,
            Self::Work => 30_000,
            Self::Upload => 120_000,
            Self::Maintain => 0,
        }
    }

    /// How long the client waits for an answer before it throws the connection away: a little more than
    /// the server's own limit, because a frozen server does not enforce any.
    #[must_use]
    pub const fn client_limit(self) -> Duration {
        match self {
            Self::Serve => Duration::from_secs(3),
            Self::Report => Duration::from_secs(12),
            Self::Work => Duration::from_secs(35),
            Self::Upload => Duration::from_secs(125),
            Self::Maintain => Duration::from_secs(24 * 3600),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Serve => "podium serve",
            Self::Report => "podium report",
            Self::Work => "podium work",
            Self::Upload => "podium upload",
            Self::Maintain => "podium maintain",
        }
    }
}

/// A parsed `DATABASE_URL` with its TLS client.
#[derive(Clone)]
pub struct ConnectSettings {
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL holds a password, so nothing of it is shown.
        f.write_str("ConnectSettings(..)")
    }
}

impl ConnectSettings {
    /// Reads a `postgres://` URL or a key-value string.
    ///
    /// `sslmode` means what it means to libpq: `disable`, `allow` and `prefer` (default), `require` (encrypted,
    /// certificate not checked), `verify-ca` and `verify-full` (certificate checked against `sslrootcert`, a
    /// PEM file, or the system's roots; `verify-full` also checks the name, and so does `verify-ca` here).
    ///
    /// # Errors
    /// [`StorageError::Settings`] names what cannot be read, never the URL itself.
    pub fn parse(url: &str) -> Result<Self, StorageError> {
        let (url, mode) = take_parameter(url, "sslmode");
        let (url, root_file) = take_parameter(&url, "sslrootcert");
        let mut config: Config = url
            .parse()
            .map_err(|_| StorageError::Settings("not a PostgreSQL URL".into()))?;
        let mode = mode.as_deref().unwrap_or("prefer");
        let (ssl_mode, verify) = match mode {
            "disable" => (SslMode::Disable, false),
            "allow" | "prefer" => (SslMode::Prefer, false),
            "require" => (SslMode::Require, root_file.is_some()),
            "verify-ca" | "verify-full" => (SslMode::Require, true),
            other => return Err(StorageError::Settings(format!("unknown sslmode `{other}`"))),
        };
        config
            .ssl_mode(ssl_mode)
            .connect_timeout(Duration::from_secs(2))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(5));
        let tls = MakeRustlsConnect::new(tls_client(verify, root_file.as_deref())?);
        Ok(Self { config, tls })
    }

    /// The same server, another database.
    #[must_use]
    pub fn with_database(mut self, name: &str) -> Self {
        self.config.dbname(name);
        self
    }

    /// Settings of a connection for `purpose`, with every server-side limit.
    #[must_use]
    pub fn config_for(&self, purpose: Purpose) -> Config {
        let mut config = self.config.clone();
        let inherited = config
            .get_options()
            .map(|o| format!("{o} "))
            .unwrap_or_default();
        config.application_name(purpose.name()).options(format!(
            "{inherited}-c statement_timeout={} -c lock_timeout=1000 \
             -c idle_in_transaction_session_timeout={} -c TimeZone=UTC -c synchronous_commit=on",
            purpose.statement_timeout_ms(),
            if purpose == Purpose::Maintain {
                0
            } else {
                5_000
            },
        ));
        config
    }

    /// The TLS connector, for pools.
    #[must_use]
    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Opens one connection outside the pools. The task that drives it ends when the client is dropped.
    ///
    /// # Errors
    /// [`StorageError::Db`] when the server refuses; [`StorageError::TimedOut`] after 5 s.
    pub async fn connect(&self, purpose: Purpose) -> Result<Client, StorageError> {
        Ok(self.open(purpose).await?.0)
    }

    /// As [`Self::connect`], for code that is written for connections of the pools.
    pub(crate) async fn connect_alone(
        &self,
        purpose: Purpose,
    ) -> Result<ClientWrapper, StorageError> {
        let (client, task) = self.open(purpose).await?;
        Ok(ClientWrapper::new(client, task))
    }

    async fn open(&self, purpose: Purpose) -> Result<(Client, JoinHandle<()>), StorageError> {
        let config = self.config_for(purpose);
        let (client, connection) =
            tokio::time::timeout(Duration::from_secs(5), config.connect(self.tls()))
                .await
                .map_err(|_| StorageError::TimedOut)??;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "database connection ended");
            }
        });
        Ok((client, task))
    }
}

/// Takes one query parameter out of a URL, because the driver refuses those that it does not know.
fn take_parameter(url: &str, name: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let mut found = None;
    let rest: Vec<&str> = query
        .split('&')
        .filter(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => {
                found = Some(percent_decode(value));
                false
            }
            _ => true,
        })
        .collect();
    let url = if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", rest.join("&"))
    };
    (url, found)
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        out.push(hex.unwrap_or(byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn tls_client(verify: bool, root_file: Option<&str>) -> Result<ClientConfig, StorageError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| StorageError::Settings(format!("TLS is not available: {error}")))?;
    Ok(if verify {
        builder
            .with_root_certificates(roots(root_file)?)
            .with_no_client_auth()
    } else {
        let verifier = Arc::new(EncryptOnly(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth()
    })
}

fn roots(file: Option<&str>) -> Result<RootCertStore, StorageError> {
    let mut store = RootCertStore::empty();
    if let Some(file) = file.filter(|f| *f != "system") {
        let read = |e| StorageError::Settings(format!("sslrootcert `{file}` cannot be read: {e}"));
        for certificate in CertificateDer::pem_file_iter(file).map_err(read)? {
            store
                .add(certificate.map_err(read)?)
                .map_err(|e| StorageError::Settings(format!("sslrootcert `{file}`: {e}")))?;
        }
    } else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() {
        return Err(StorageError::Settings(
            "no root certificate to verify the database with".into(),
        ));
    }
    Ok(store)
}

/// Encrypts without asking who the server is, which is what libpq's `prefer` and `require` mean.
#[derive(Debug)]
struct EncryptOnly(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for EncryptOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_sslmode_out_of_the_url() {
        let (url, mode) = take_parameter("postgres://h/d?a=1&sslmode=verify-full&b=2", "sslmode");
        assert_eq!(url, "postgres://h/d?a=1&b=2");
        assert_eq!(mode.as_deref(), Some("verify-full"));
        let (url, file) =
            take_parameter("postgres://h/d?sslrootcert=%2Fetc%2Fca.pem", "sslrootcert");
        assert_eq!(url, "postgres://h/d");
        assert_eq!(file.as_deref(), Some("/etc/ca.pem"));
    }

    #[test]
    fn refuses_an_unknown_mode_without_showing_the_url() {
        let error = ConnectSettings::parse("postgres://u:secret@h/d?sslmode=maybe").unwrap_err();
        assert_eq!(
            error.to_string(),
            "bad database settings: unknown sslmode `maybe`"
        );
        let error = ConnectSettings::parse("nonsense secret").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
