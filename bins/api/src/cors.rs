//! Calls from pages of other origins (the Fetch standard, CORS protocol). Nothing is read from cookies here, so answers may be
//! shown to every page that holds a key or token of its own; which pages may call is the operator's choice.

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};

/// How long browsers remember what they were allowed, in seconds.
const MAX_AGE: &str = "600";
/// What our routes read.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key, if-match, if-none-match, traceparent, \
     x-api-key, x-experiment-id, x-request-id, x-session-id, x-variant-id";
/// What pages may read beside the few headers that they always may.
const EXPOSED_HEADERS: &str = "etag, location, retry-after, x-request-id";

const WILDCARD: HeaderValue = HeaderValue::from_static("*");

/// Origins whose pages may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    Any,
    /// Those of these origins, such as `https://shop.example`.
    Listed(Vec<String>),
}

impl std::str::FromStr for Origins {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let origins: Option<Vec<String>> = text.split(',').map(|one| origin(one.trim())).collect();
        origins.map(Self::Listed).ok_or(())
    }
}

/// Scheme, host and port as browsers write them: lower case, no path, no default port.
fn origin(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(fits) && !host.ends_with(default_port))
        .then(|| text.to_owned())
}

impl Origins {
    /// What `Access-Control-Allow-Origin` says to the page that asks; `None` where it may not call.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        match self {
            Self::Any => Some(WILDCARD),
            Self::Listed(origins) => origins
                .iter()
                .any(|listed| listed.as_bytes() == origin.as_bytes())
                .then(|| origin.clone()),
        }
    }

    /// The answer to a browser that asks before it calls, if this is one and its page may.
    #[must_use]
    pub fn preflight(&self, req: &HttpRequest, methods: &str) -> Option<HttpResponse> {
        let headers = req.headers();
        if req.method() != Method::OPTIONS
            || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        self.allowed(headers)?;
        let mut response = HttpResponse::NoContent();
        response
            .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, methods))
            .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS))
            .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        Some(response.finish())
    }

    /// Tells the browser whether the page may read this answer.
    pub fn mark(&self, req: &HttpRequest, response: &mut HttpResponse) {
        let allowed = self.allowed(req.headers());
        let answer = response.headers_mut();
        if *self != Self::Any {
            // The answer to one page must not be shown to another by a cache in between.
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = allowed {
            let mut set = |name: HeaderName, value| answer.insert(name, value);
            set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED_HEADERS),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        assert_eq!("*".parse(), Ok(Origins::Any));
        let listed = Origins::Listed(vec![
            "https://shop.example".into(),
            "http://localhost:5173".into(),
        ]);
        assert_eq!(
            "https://shop.example, http://localhost:5173".parse(),
            Ok(listed)
        );
        for wrong in [
            "shop.example",
            "https://shop.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "https://*.shop.example",
            "null",
            "",
            "https://",
            "https://a,,https://b",
            "*,https://a",
        ] {
            assert!(wrong.parse::<Origins>().is_err(), "{wrong}");
        }
    }
}
