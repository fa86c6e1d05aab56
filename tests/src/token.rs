//! Tokens, good and bad.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::app::SECRET;
use crate::clock::now;

/// A good token of a user, valid for an hour.
#[must_use]
pub fn valid(user: &str) -> String {
    signed(&claims(user), Algorithm::HS256, SECRET)
}

/// The claims of a good token.
#[must_use]
pub fn claims(user: &str) -> Value {
    let now = now().timestamp();
    json!({"userId": user, "iat": now - 1, "exp": now + 3600})
}

/// A token with these claims.
///
/// # Panics
/// When the claims cannot be signed.
#[must_use]
pub fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    encode(
        &Header::new(algorithm),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

/// Tokens that nobody must accept, with what is wrong with them.
///
/// # Panics
/// Never: the parts are well formed.
#[must_use]
pub fn forged() -> Vec<(&'static str, String)> {
    let good = valid("1");
    let now = now().timestamp();
    let with = |name: &str, value: Value| {
        let mut claims = claims("1");
        claims[name] = value;
        signed(&claims, Algorithm::HS256, SECRET)
    };
    let (_, body_and_signature) = good.split_once('.').unwrap();
    let (body, signature) = body_and_signature.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"}
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let without = |name: &str| {
        let mut claims = claims("1");
        claims.as_object_mut().unwrap().remove(name);
        signed(&claims, Algorithm::HS256, SECRET)
    };
    vec![
        ("garbage", "garbage".into()),
        ("empty", String::new()),
        ("three dots", "..".into()),
        ("no algorithm", format!("{unsigned}.{body}.")),
        (
            "no algorithm, with a signature",
            format!("{unsigned}.{body}.{signature}"),
        ),
        ("HS384", signed(&claims("1"), Algorithm::HS384, SECRET)),
        ("HS512", signed(&claims("1"), Algorithm::HS512, SECRET)),
        (
            "another secret",
            signed(
                &claims("1"),
                Algorithm::HS256,
                "another-secret-of-more-than-32-bytes",
            ),
        ),
        ("cut off", good[..good.len() - 2].to_owned()),
        ("expired", with("exp", json!(now - 60))),
        (
            "text as expiry",
            with("exp", json!((now + 3600).to_string())),
        ),
        ("not yet valid", with("nbf", json!(now + 3600))),
        ("issued in the future", with("iat", json!(now + 3600))),
        ("lives too long", with("exp", json!(now + 25 * 3600))),
        ("no expiry", without("exp")),
        ("no time of issue", without("iat")),
        ("nobody", without("userId")),
    ]
}
