//! One POST to a target: to a checked address, within its time, reading no more of the answer than we need.

use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, redirect, retry};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use crate::guard::{self, Refused};
use crate::sender::StartError;
use crate::tls;

/// No more of an answer is read.
const ANSWER: usize = 64 * 1024;

/// Time limits of tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// To a connection.
    pub connect: Duration,
    /// To the head of the answer, which must be there by then; its body is read until then at most.
    pub total: Duration,
    /// The same for webhooks, whose receivers may work before they answer.
    pub webhook: Duration,
    /// To the reply to a command of SMTP.
    pub mail_command: Duration,
    /// To the end of a whole e-mail, with the wait for a connection and its making.
    pub mail: Duration,
}

impl TimeLimits {
    pub(crate) const DEFAULT: Self = Self {
        connect: Duration::from_secs(3),
        total: Duration::from_secs(10),
        webhook: Duration::from_secs(15),
        mail_command: Duration::from_secs(10),
        mail: Duration::from_secs(50),
    };
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a target answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The beginning of the body: at most 64 KiB, and no more than came in time.
    pub body: Vec<u8>,
}

/// Why there is no answer. No text shows the address, which may be a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// We do not send there.
    #[error("the address {0}")]
    Refused(Refused),
    /// It took too long.
    #[error("no answer in time")]
    TooSlow,
    /// There was no connection, or it broke.
    #[error("no answer: {0}")]
    Broken(String),
}

/// Sends requests; connections are kept for a while.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client,
    allow_private: bool,
}

impl Http {
    /// A client that trusts these roots and, unless `allow_private`, connects to public addresses only.
    ///
    /// # Errors
    /// [`StartError::Tls`].
    pub fn new(
        roots: &[CertificateDer<'static>],
        allow_private: bool,
        limits: TimeLimits,
    ) -> Result<Self, StartError> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls::client(roots)?)
            .dns_resolver(Arc::new(PublicOnly { allow_private }))
            .connect_timeout(limits.connect)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .no_proxy()
            .user_agent("Podium")
            .build()
            .map_err(|error| StartError::Tls(error.without_url().to_string()))?;
        Ok(Self {
            client,
            allow_private,
        })
    }

    /// Posts `body` and reads the answer, all within `total`. A status is an answer even when what follows breaks off or
    /// does not end: whoever said 202 has taken the message, and would get it twice.
    ///
    /// # Errors
    /// [`HttpError`]. An answer of any status is none.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        total: Duration,
    ) -> Result<Reply, HttpError> {
        let url = guard::target(url, self.allow_private).map_err(HttpError::Refused)?;
        let mut request = self.client.post(url).body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let end = Instant::now() + total;
        let head = timeout_at(end, request.send()).await;
        let response = head.map_err(|_| HttpError::TooSlow)?.map_err(broken)?;
        let mut reply = head_of(&response);
        // What came until then is kept.
        let _ = timeout_at(end, read_body(response, &mut reply.body)).await;
        reply.body.truncate(ANSWER);
        Ok(reply)
    }
}

fn head_of(response: &reqwest::Response) -> Reply {
    let retry_after = response.headers().get(RETRY_AFTER);
    Reply {
        status: response.status().as_u16(),
        retry_after: retry_after
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        body: Vec::new(),
    }
}

/// Reads until the end, the limit or the break of the line.
async fn read_body(mut response: reqwest::Response, body: &mut Vec<u8>) {
    while body.len() < ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
}

fn broken(error: reqwest::Error) -> HttpError {
    if error.is_timeout() {
        return HttpError::TooSlow;
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    loop {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return HttpError::Refused(*refused);
        }
        match cause.source() {
            Some(deeper) => cause = deeper,
            None => return HttpError::Broken(cause.to_string()),
        }
    }
}

/// Resolves names to public addresses only. The connection goes to what was checked here, so a name whose server answers
/// differently the next time gains nothing.
struct PublicOnly {
    allow_private: bool,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses = guard::allowed(found, allow_private)?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
