//! Conversations with the mail relay, over connections of our own.
//!
//! A conversation owns its connection: whoever drops it in the middle, because it takes too long, drops the connection
//! with it, so that no later mail reads the reply to an earlier one. Only what ended well is kept for the next mail.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use lettre::transport::smtp::response::{Response, Severity};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};

use crate::http::TimeLimits;
use crate::sender::StartError;
use crate::settings::{Smtp, SmtpMode};

/// To a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection waits for the next message.
const IDLE: Duration = Duration::from_secs(60);
/// Connections to the relay.
const CONNECTIONS: usize = 2;
/// How long a message waits for one of them; the rest of its time is for the conversation.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SmtpError {
    /// The relay refused it, or the line broke.
    #[error(transparent)]
    Refused(#[from] smtp::Error),
    /// The relay said nothing for too long.
    #[error("the mail server took too long")]
    Silent,
    /// The reply is none to what was said.
    #[error("the mail server answered {0} where that makes no sense")]
    Unexpected(u16),
    /// An address has letters that the relay does not know.
    #[error("the mail server takes no addresses outside of ASCII")]
    Unsupported,
    /// Every connection is taken.
    #[error("the mail server is busy with other messages")]
    Busy,
}

enum Protection {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

/// The mail relay.
pub(crate) struct Relay {
    host: String,
    port: u16,
    hello: ClientId,
    protection: Protection,
    login: Option<Credentials>,
    limits: TimeLimits,
    places: Semaphore,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").finish_non_exhaustive()
    }
}

impl Relay {
    /// Connections are made when they are needed.
    ///
    /// # Errors
    /// [`StartError::Tls`].
    pub(crate) fn new(
        settings: &Smtp,
        roots: &[CertificateDer<'static>],
        limits: TimeLimits,
    ) -> Result<Self, StartError> {
        let protection = match settings.mode {
            SmtpMode::StartTls => Protection::StartTls(parameters(settings, roots)?),
            SmtpMode::Tls => Protection::Tls(parameters(settings, roots)?),
            SmtpMode::None => Protection::None,
        };
        // The settings hold no password for an unencrypted connection.
        let login = settings.login.as_ref();
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            hello: ClientId::Domain(settings.from.email.domain().to_owned()),
            protection,
            login: login.map(|(user, password)| {
                Credentials::new(user.clone(), password.expose().to_owned())
            }),
            limits,
            places: Semaphore::new(CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// Hands a mail over, and answers what the relay said when it took it.
    ///
    /// # Errors
    /// [`SmtpError`]. When it is [`SmtpError::Silent`], or the line broke behind the final dot, nobody knows whether the
    /// relay took it.
    pub(crate) async fn send(&self, mail: &lettre::Message) -> Result<Response, SmtpError> {
        let end = Instant::now() + self.limits.mail;
        let patience = PATIENCE.min(self.limits.mail);
        let place = timeout(patience, self.places.acquire()).await;
        // The places are never closed.
        let _place = place
            .map_err(|_| SmtpError::Busy)?
            .map_err(|_| SmtpError::Busy)?;
        let conversation = timeout_at(end.into(), self.converse(mail));
        conversation.await.map_err(|_| SmtpError::Silent)?
    }

    async fn converse(&self, mail: &lettre::Message) -> Result<Response, SmtpError> {
        let mut connection = match self.parked().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let said = self.hand_over(&mut connection, mail).await;
        match &said {
            Ok(_) => self.park(connection),
            // The relay knows where it stands and may be told the end; any other line is cut.
            Err(SmtpError::Refused(error)) if error.status().is_some() => {
                let _ = self.step(connection.quit()).await;
            }
            Err(_) => {}
        }
        said
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &lettre::Message,
    ) -> Result<Response, SmtpError> {
        const DONE: Severity = Severity::PositiveCompletion;
        let from = Mail::new(
            mail.envelope().from().cloned(),
            extensions(connection, mail)?,
        );
        expect(DONE, self.step(connection.command(from)).await?)?;
        for to in mail.envelope().to() {
            let to = Rcpt::new(to.clone(), Vec::new());
            expect(DONE, self.step(connection.command(to)).await?)?;
        }
        let go_ahead = self.step(connection.command(Data)).await?;
        expect(Severity::PositiveIntermediate, go_ahead)?;
        // Relays look into a mail before they take it: who asks again too early sends it twice. The limit of the whole
        // message is the one that counts here.
        expect(DONE, connection.message(&mail.formatted()).await?)
    }

    /// A connection that was used lately and still answers.
    async fn parked(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let (mut connection, since) = self.lock().pop()?;
            let fresh = since.elapsed() < IDLE;
            if fresh
                && timeout(self.limits.mail_command, connection.test_connected()).await == Ok(true)
            {
                return Some(connection);
            }
        }
    }

    fn park(&self, connection: AsyncSmtpConnection) {
        self.lock().push((connection, Instant::now()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let tls = match &self.protection {
            Protection::Tls(parameters) => Some(parameters.clone()),
            Protection::None | Protection::StartTls(_) => None,
        };
        let server = (self.host.as_str(), self.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT), &self.hello, tls, None);
        let greeted = timeout(CONNECT + self.limits.mail_command, connecting).await;
        let mut connection = greeted.map_err(|_| SmtpError::Silent)??;
        if let Protection::StartTls(parameters) = &self.protection {
            let upgrade = connection.starttls(parameters.clone(), &self.hello);
            self.step(upgrade).await?;
        }
        if let Some(login) = &self.login {
            let welcome = self.step(connection.auth(&[Mechanism::Plain, Mechanism::Login], login));
            expect(Severity::PositiveCompletion, welcome.await?)?;
        }
        Ok(connection)
    }

    /// One command and its reply, within the limit of a command.
    async fn step<T>(
        &self,
        exchange: impl Future<Output = Result<T, smtp::Error>>,
    ) -> Result<T, SmtpError> {
        let done = timeout(self.limits.mail_command, exchange).await;
        Ok(done.map_err(|_| SmtpError::Silent)??)
    }
}

/// What the addresses need; the mail itself is ASCII as it is rendered.
fn extensions(
    connection: &AsyncSmtpConnection,
    mail: &lettre::Message,
) -> Result<Vec<MailParameter>, SmtpError> {
    let envelope = mail.envelope();
    let mut addresses = envelope.to().iter().chain(envelope.from());
    if addresses.all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
        return Ok(Vec::new());
    }
    if connection
        .server_info()
        .supports_feature(Extension::SmtpUtfEight)
    {
        return Ok(vec![MailParameter::SmtpUtfEight]);
    }
    Err(SmtpError::Unsupported)
}

/// The library takes every reply of 2xx and 3xx for a good one; only one of them is an answer to what was said.
fn expect(severity: Severity, reply: Response) -> Result<Response, SmtpError> {
    if reply.code().severity == severity {
        return Ok(reply);
    }
    Err(SmtpError::Unexpected(u16::from(reply.code())))
}

fn parameters(
    settings: &Smtp,
    roots: &[CertificateDer<'static>],
) -> Result<TlsParameters, StartError> {
    let refused = |error: smtp::Error| StartError::Tls(error.to_string());
    let mut builder =
        TlsParameters::builder(settings.host.clone()).certificate_store(CertificateStore::None);
    for root in roots {
        let root = Certificate::from_der(root.to_vec()).map_err(refused)?;
        builder = builder.add_root_certificate(root);
    }
    builder.build().map_err(refused)
}
