//! The HTTP client: what a storefront's backend and an administrator's script would use.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::DemoError;

/// Far above what any route may take, so that only a server that hangs meets it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Times that a request is sent before an outage counts as one.
const ATTEMPTS: u32 = 5;

/// Calls one API over keep-alive connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

/// The body of a successful admin answer.
#[derive(Deserialize)]
struct Success<T> {
    data: T,
}

/// What is read of a problem document.
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<Value>,
}

impl Client {
    /// A client of the API at `address`; `token` opens its admin routes.
    ///
    /// # Errors
    /// [`DemoError::Client`].
    pub fn new(address: SocketAddr, token: String) -> Result<Self, DemoError> {
        let http = reqwest::Client::builder()
            // The server is this process: a proxy from the environment could not reach it.
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(DemoError::Client)?;
        Ok(Self {
            http,
            base: format!("http://{address}"),
            token,
        })
    }

    /// Where the API is, such as `http://127.0.0.1:3000`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token of the admin routes.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The `data` of an admin answer.
    ///
    /// # Errors
    /// [`DemoError::NoAnswer`], [`DemoError::Refused`], [`DemoError::Shape`].
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, DemoError> {
        let answer: Success<T> = self.call(Method::GET, path, None, true).await?;
        Ok(answer.data)
    }

    /// As [`Client::read`]; `None` where there is no such thing.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DemoError> {
        match self.read(path).await {
            Ok(found) => Ok(Some(found)),
            Err(DemoError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes something through an admin route.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn change(&self, path: &str, body: Option<Value>) -> Result<Value, DemoError> {
        let answer: Success<Value> = self.call(Method::POST, path, body, true).await?;
        Ok(answer.data)
    }

    /// Calls a public route.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, DemoError> {
        let body = serde_json::to_value(body).map_err(|source| DemoError::Shape {
            request: format!("POST {path}"),
            source,
        })?;
        self.call(Method::POST, path, Some(body), false).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        admin: bool,
    ) -> Result<T, DemoError> {
        let request = format!("{method} {path}");
        let response = self
            .answered(&request, || {
                self.request(&method, path, body.as_ref(), admin)
            })
            .await?;
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .map_err(|source| DemoError::NoAnswer {
                request: request.clone(),
                source,
            })?;
        if !status.is_success() {
            return Err(DemoError::Refused {
                request,
                status: status.as_u16(),
                detail: detail(&bytes),
            });
        }
        serde_json::from_slice(&bytes).map_err(|source| DemoError::Shape { request, source })
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        admin: bool,
    ) -> RequestBuilder {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.base));
        if admin {
            request = request.bearer_auth(&self.token);
        }
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// The answer that is not "later". Sending again is harmless: events have ids, and what an admin route did
    /// before is refused the second time, not done twice.
    async fn answered(
        &self,
        request: &str,
        build: impl Fn() -> RequestBuilder,
    ) -> Result<Response, DemoError> {
        let mut attempt = 1;
        loop {
            let response = build().send().await.map_err(|source| DemoError::NoAnswer {
                request: request.to_owned(),
                source,
            })?;
            if attempt == ATTEMPTS || !is_later(response.status()) {
                return Ok(response);
            }
            tokio::time::sleep(retry_after(&response)).await;
            attempt += 1;
        }
    }
}

fn is_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    )
}

fn retry_after(response: &Response) -> Duration {
    let header = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    Duration::from_secs(header.and_then(|seconds| seconds.parse().ok()).unwrap_or(1))
}

/// The sentence of a problem document, with the fields that it complains about.
fn detail(body: &[u8]) -> String {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let fields = problem.errors.iter().map(|field| {
        format!(
            " ({} {})",
            field["pointer"].as_str().unwrap_or_default(),
            field["detail"].as_str().unwrap_or_default()
        )
    });
    std::iter::once(problem.detail.clone())
        .chain(fields)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::detail;

    #[test]
    fn a_refusal_names_the_fields() {
        let body = br#"{"detail": "1 field is wrong", "errors": [{"pointer": "/name", "detail": "is required"}]}"#;
        assert_eq!(detail(body), "1 field is wrong (/name is required)");
        assert_eq!(detail(b"<html>"), "");
    }
}
