//! Every error answer: a problem document (RFC 9457) with one status and one stable code per fault.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use podium_domain::fault::{Fault, Faults};
use podium_storage::StorageError;
use podium_storage::assignments::Unavailable;
use podium_storage::database::AsStorageError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::json::Malformed;

/// Kinds of error answers: the table of docs/API.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 400: the body is not one JSON document.
    MalformedJson,
    /// 422 (400 on the two routes of the earlier system): a field is missing or wrong.
    ValidationFailed,
    /// 422: neither a variant nor an assignment.
    NoAssignment,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 409: the state of the thing does not allow it.
    Conflict,
    /// 409: an experiment does not meet every criterion of a promotion.
    NotEligible,
    /// 412: `If-Match` names an older version.
    PreconditionFailed,
    /// 413
    TooLarge,
    /// 414
    UriTooLong,
    /// 431
    HeadersTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 428: `If-Match` is missing.
    PreconditionRequired,
    /// 422: the same idempotency key with another request.
    IdempotencyMismatch,
    /// 429
    RateLimited,
    /// 503: the database is away or a queue is full.
    Unavailable,
    /// 500: our bug.
    Internal,
}

impl Code {
    /// Status, code and title.
    #[must_use]
    pub const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::MalformedJson => (400, "malformed_json", "Malformed JSON"),
            Self::ValidationFailed => (422, "validation_failed", "Validation failed"),
            Self::NoAssignment => (422, "no_assignment", "No assignment"),
            Self::Unauthorized => (401, "unauthorized", "Unauthorized"),
            Self::Forbidden => (403, "forbidden", "Forbidden"),
            Self::NotFound => (404, "not_found", "Not found"),
            Self::MethodNotAllowed => (405, "method_not_allowed", "Method not allowed"),
            Self::RequestTimeout => (408, "request_timeout", "Request timeout"),
            Self::Conflict => (409, "conflict", "Conflict"),
            Self::NotEligible => (409, "not_eligible", "Not eligible"),
            Self::PreconditionFailed => (412, "precondition_failed", "Precondition failed"),
            Self::TooLarge => (413, "too_large", "Too large"),
            Self::UriTooLong => (414, "uri_too_long", "URI too long"),
            Self::HeadersTooLarge => (431, "headers_too_large", "Request header fields too large"),
            Self::UnsupportedMediaType => (415, "unsupported_media_type", "Unsupported media type"),
            Self::PreconditionRequired => (428, "precondition_required", "Precondition required"),
            Self::IdempotencyMismatch => (422, "idempotency_mismatch", "Idempotency key reused"),
            Self::RateLimited => (429, "rate_limited", "Too many requests"),
            Self::Unavailable => (503, "unavailable", "Unavailable"),
            Self::Internal => (500, "internal", "Internal error"),
        }
    }
}

/// An error answer in the making.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: Code,
    status: u16,
    detail: String,
    faults: Vec<Fault>,
    header: Option<Box<(HeaderName, String)>>,
    texts: bool,
    data: Option<serde_json::Value>,
    cause: Option<String>,
}

/// The body of every error answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem<'a> {
    /// Always `about:blank`: the code says what it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Short text for the code.
    pub title: &'static str,
    /// Same as the HTTP status.
    pub status: u16,
    /// Stable, for programs.
    pub code: &'static str,
    /// What was wrong with this request, for people.
    pub detail: &'a str,
    /// Path of the request.
    pub instance: &'a str,
    /// Same as the header `X-Request-Id`.
    pub request_id: &'a str,
    /// Always false.
    pub success: bool,
    /// Same as `detail`, as the earlier system named it.
    pub error: &'a str,
    /// Every wrong field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub errors: &'a [FieldError],
    /// The same as texts; on the route of the earlier system alone.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub validation_errors: &'a [String],
    /// What the refusal rests on, where that can be told: a check's answer, the first rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a serde_json::Value>,
}

/// One wrong field.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the body.
    pub pointer: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
}

impl ApiError {
    /// An error of one kind.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            status: code.row().0,
            detail: detail.into(),
            faults: Vec::new(),
            header: None,
            texts: false,
            data: None,
            cause: None,
        }
    }

    /// 404 for a thing that is not there.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist"))
    }

    /// 409 with a reason.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Code::Conflict, detail)
    }

    /// 422 with every wrong field.
    #[must_use]
    pub fn validation(faults: Faults) -> Self {
        let faults = faults.into_vec();
        let detail = match faults.as_slice() {
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} fields are wrong", many.len()),
        };
        Self {
            faults,
            ..Self::new(Code::ValidationFailed, detail)
        }
    }

    /// 422 for one field.
    #[must_use]
    pub fn field(pointer: &str, code: &'static str, detail: impl Into<String>) -> Self {
        let mut faults = Faults::new();
        faults.push(pointer, code, detail);
        Self::validation(faults)
    }

    /// 401; the reason goes to the log, not to the client.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self {
            header: Some(Box::new((header::WWW_AUTHENTICATE, "Bearer".into()))),
            ..Self::new(Code::Unauthorized, "a valid bearer token is required")
        }
    }

    /// 405 with the methods that the path takes.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        Self {
            header: Some(Box::new((header::ALLOW, allow.to_owned()))),
            ..Self::new(Code::MethodNotAllowed, format!("this path takes {allow}"))
        }
    }

    /// 429 with `Retry-After`, in whole seconds from 1 on.
    #[must_use]
    pub fn rate_limited(wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self {
            header: Some(Box::new((header::RETRY_AFTER, seconds.max(1).to_string()))),
            ..Self::new(Code::RateLimited, "too many requests; slow down")
        }
    }

    /// 503 with `Retry-After`.
    #[must_use]
    pub fn unavailable() -> Self {
        Self {
            header: Some(Box::new((header::RETRY_AFTER, "1".into()))),
            ..Self::new(
                Code::Unavailable,
                "the service cannot take this now; try again",
            )
        }
    }

    /// 500. The cause goes to the log, with the request's id.
    #[must_use]
    pub fn internal(cause: &str) -> Self {
        Self {
            cause: Some(cause.to_owned()),
            ..Self::new(
                Code::Internal,
                "an internal error; the request id leads to its log line",
            )
        }
    }

    /// What went wrong in our own code, for the log alone.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The same error under another status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same error with what it rests on.
    #[must_use]
    pub fn with_data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Wrong fields as the promotion route of the earlier system tells them: status 400, with a list of texts beside.
    #[must_use]
    pub fn with_texts(self) -> Self {
        if self.faults.is_empty() {
            return self;
        }
        Self {
            texts: true,
            ..self.with_status(400)
        }
    }

    /// Which kind it is.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Text for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The wrong fields, as they stand in answers.
    #[must_use]
    pub fn field_errors(&self) -> Vec<FieldError> {
        self.faults
            .iter()
            .map(|f| FieldError {
                pointer: f.pointer.clone(),
                code: f.code,
                detail: f.detail.clone(),
            })
            .collect()
    }

    /// The answer.
    #[must_use]
    pub fn response(&self, path: &str, request_id: &str) -> HttpResponse {
        let (_, code, title) = self.code.row();
        let errors = self.field_errors();
        let texts: Vec<String> = if self.texts {
            self.faults.iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        let problem = Problem {
            kind: "about:blank",
            title,
            status: self.status,
            code,
            detail: &self.detail,
            instance: path,
            request_id,
            success: false,
            error: &self.detail,
            errors: &errors,
            validation_errors: &texts,
            data: self.data.as_ref(),
        };
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        response.insert_header((
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        ));
        if let Some((name, value)) = self.header.as_deref() {
            response.insert_header((name.clone(), value.as_str()));
        }
        // A struct of strings always serialises; an empty body would still carry the status.
        response.body(serde_json::to_vec(&problem).unwrap_or_default())
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Pool(_)
            | StorageError::TimedOut
            | StorageError::QueueFull
            | StorageError::Contended { .. } => Self::unavailable(),
            StorageError::Db(ref db) => match db.as_db_error() {
                // The connection broke, or the server is starting, stopping, full or too slow.
                None => Self::unavailable(),
                Some(db)
                    if matches!(
                        db.code().code().get(..2),
                        Some("08" | "53" | "57" | "55" | "40" | "25")
                    ) =>
                {
                    Self::unavailable()
                }
                Some(_) => Self::internal(&error.chain()),
            },
            other => Self::internal(&other.chain()),
        }
    }
}

/// So that a transaction can see contention inside an [`ApiError`] made from a [`StorageError`]; the conversion has
/// forgotten it by then, so handlers return storage errors from inside transactions.
impl AsStorageError for ApiError {
    fn as_storage(&self) -> Option<&StorageError> {
        None
    }
}

impl From<Malformed> for ApiError {
    fn from(error: Malformed) -> Self {
        Self::new(Code::MalformedJson, error.to_string())
    }
}

impl From<Unavailable> for ApiError {
    fn from(_: Unavailable) -> Self {
        Self::unavailable()
    }
}
