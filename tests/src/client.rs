//! Requests, and what is expected of answers.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// Longer than the application may take for anything; a request that reaches it hangs.
const HANGS: Duration = Duration::from_secs(30);

/// What no answer may show.
const INTERNALS: [&str; 12] = [
    "postgres",
    "tokio",
    "sqlstate",
    "select ",
    "insert into",
    "panicked",
    "backtrace",
    ".rs:",
    "/src/",
    "rust",
    "serde",
    "deadpool",
];

/// An HTTP client of one application. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// A client of the application at `base`, without a token.
    ///
    /// # Panics
    /// When the HTTP library does not start.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(HANGS)
            .no_proxy()
            .build()
            .unwrap();
        Self {
            http,
            base: base.to_owned(),
            token: None,
        }
    }

    /// The same with a bearer token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same application, for raw requests: `host:port`.
    ///
    /// # Panics
    /// Never: every base begins like this.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap()
    }

    /// A request without a token, to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A GET without a token.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// A POST of JSON without a token.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// A POST of any bytes as JSON with the token.
    pub async fn admin_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(
            self.request(Method::POST, path)
                .bearer_auth(self.token.as_ref().expect("a client with a token"))
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    /// A POST to an application that may die in between.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        Answer::try_of(self.request(Method::POST, path).json(body)).await
    }

    /// A POST of bytes that call themselves JSON.
    pub async fn post_bytes(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        Answer::of(
            self.request(Method::POST, path)
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    /// A request with the client's token.
    ///
    /// # Panics
    /// When the client has none.
    pub async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = self
            .request(method, path)
            .bearer_auth(self.token.as_ref().expect("a client with a token"));
        Answer::of(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// An admin PATCH of whatever version there is.
    ///
    /// # Panics
    /// Without a token.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::PATCH, path)
            .bearer_auth(self.token.as_ref().expect("a client with a token"))
            .header("if-match", "*");
        Answer::of(request.json(body)).await
    }

    /// `assign`, which always answers 200 here.
    pub async fn assign(&self, body: Value) -> Value {
        self.post("/api/v1/experiments/assign", &body).await.ok()
    }

    /// The name of the variant that a user gets in a named experiment.
    ///
    /// # Panics
    /// When the answer has none.
    pub async fn variant_of(&self, experiment: &str, user: &str) -> String {
        let answer = self
            .assign(json!({"experiment": experiment, "user_id": user}))
            .await;
        answer["variant"].as_str().unwrap().to_owned()
    }

    /// One event of a type that has a route of its own, such as `add-to-cart`.
    pub async fn track(&self, kind: &str, body: Value) -> Answer {
        self.post(&format!("/api/v1/experiments/track-{kind}"), &body)
            .await
    }

    /// One event of any type, or a batch.
    pub async fn track_any(&self, body: Value) -> Answer {
        self.post("/api/v1/experiments/track", &body).await
    }
}

impl Client {
    /// Events in batches, all of which are taken.
    ///
    /// # Panics
    /// When one is not.
    pub async fn track_all(&self, events: &[Value]) {
        for batch in events.chunks(1_000) {
            let answer = self.track_any(json!({"events": batch})).await.ok();
            let results = answer["results"].as_array().unwrap();
            assert!(results.iter().all(|r| r["success"] == true), "{answer}");
        }
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Sends a request.
    ///
    /// # Panics
    /// When there is no answer, which no test expects of a living application.
    pub async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request)
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Sends a request to an application that may die in between.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_of(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self {
            status,
            headers,
            body: response.bytes().await?.to_vec(),
        })
    }

    /// A header as text; empty when it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn ok(&self) -> Value {
        assert!(
            matches!(self.status, 200 | 201),
            "{} {}",
            self.status,
            self.text()
        );
        self.json()
    }

    /// `data` of an answer of an admin route that must be a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn data(&self) -> Value {
        let body = self.ok();
        assert_eq!(body["success"], true, "{body}");
        assert_eq!(self.header("cache-control"), "no-store");
        body["data"].clone()
    }

    /// The body of an answer that must be a refusal with this status and code.
    ///
    /// # Panics
    /// When it is another one, or not a problem document with every member.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.any_problem();
        assert_eq!(
            (self.status, problem["code"].as_str().unwrap()),
            (status, code),
            "{problem}"
        );
        problem
    }

    /// The body of an answer that must be a refusal: a problem document with every member, which shows nothing of what is
    /// inside.
    ///
    /// # Panics
    /// When it is not.
    pub fn any_problem(&self) -> Value {
        assert!(
            (400..600).contains(&self.status),
            "{} {}",
            self.status,
            self.text()
        );
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{} {}",
            self.status,
            self.text()
        );
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["success"], false, "{problem}");
        assert_eq!(
            problem["requestId"],
            self.header("x-request-id"),
            "{problem}"
        );
        for member in ["title", "code", "detail", "instance", "requestId"] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{member} is missing: {problem}"
            );
        }
        assert_eq!(problem["error"], problem["detail"], "{problem}");
        if problem["code"] == "validation_failed" {
            let errors = problem["errors"]
                .as_array()
                .unwrap_or_else(|| panic!("no errors: {problem}"));
            assert!(!errors.is_empty(), "{problem}");
            for error in errors {
                assert!(
                    error["pointer"].is_string()
                        && error["code"].is_string()
                        && error["detail"].is_string(),
                    "{problem}"
                );
            }
        }
        let text = problem["detail"].as_str().unwrap().to_lowercase();
        for internal in INTERNALS {
            assert!(!text.contains(internal), "shows {internal}: {problem}");
        }
        problem
    }
}
