//! What a token must be, and every way to forge one.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use podium_api::auth::Role;
use podium_api::clock::Clock;
use podium_tests::app::SECRET;
use podium_tests::{Answer, ApiProcess, MockClock, TestApp, token};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use reqwest::Method;
use serde_json::{Value, json};

use crate::PROGRAM;

const USERS: &str = "/api/v1/admin/users";

async fn status(app: &TestApp, token: &str) -> u16 {
    let answer = app.with_token(token).admin(Method::GET, USERS, None).await;
    if answer.status == 401 {
        answer.problem(401, "unauthorized");
    }
    answer.status
}

/// Somebody who signs with a key pair.
struct Issuer {
    algorithm: Algorithm,
    pair: KeyPair,
}

impl Issuer {
    fn all() -> Vec<Self> {
        let pairs = [
            (Algorithm::RS256, &PKCS_RSA_SHA256),
            (Algorithm::ES256, &PKCS_ECDSA_P256_SHA256),
            (Algorithm::EdDSA, &PKCS_ED25519),
        ];
        pairs
            .map(|(algorithm, kind)| Self {
                algorithm,
                pair: KeyPair::generate_for(kind).unwrap(),
            })
            .into()
    }

    fn sign(&self, claims: &Value) -> String {
        let der = self.pair.serialize_der();
        let key = match self.algorithm {
            // The key inside of its PKCS#8 wrapping.
            Algorithm::RS256 => {
                let oid = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
                let at = der.windows(oid.len()).position(|part| part == oid).unwrap();
                EncodingKey::from_rsa_der(&der[at + oid.len() + 4..])
            }
            Algorithm::ES256 => EncodingKey::from_ec_der(&der),
            _ => EncodingKey::from_ed_der(&der),
        };
        encode(&Header::new(self.algorithm), claims, &key).unwrap()
    }

    fn pem(&self) -> String {
        self.pair.public_key_pem()
    }
}

/// A file of the test's own.
fn file(name: &str, content: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("podium-it-tokens-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

async fn with_public_key(variable: &str, path: &Path) -> TestApp {
    TestApp::setup()
        .variable("JWT_SECRET", "")
        .variable(variable, path.to_str().unwrap())
        .start()
        .await
}

/// The three algorithms of public keys, each with a key file of its own; and whatever the key has not signed is refused.
#[tokio::test(flavor = "multi_thread")]
async fn public_keys_verify_what_their_private_keys_signed() {
    let issuers = Issuer::all();
    for issuer in &issuers {
        let name = format!("{:?}", issuer.algorithm);
        let path = file(&format!("{name}.pem"), &issuer.pem());
        let app = with_public_key("JWT_PUBLIC_KEY_FILE", &path).await;
        assert_eq!(
            status(&app, &issuer.sign(&token::claims("1"))).await,
            200,
            "{name}"
        );
        for other in issuers
            .iter()
            .filter(|other| other.algorithm != issuer.algorithm)
        {
            assert_eq!(
                status(&app, &other.sign(&token::claims("1"))).await,
                401,
                "{name}"
            );
        }
        // The classic: the public key, which everybody has, as the secret of a symmetric algorithm.
        for secret in [issuer.pem(), issuer.pem().trim_end().to_owned()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let forged = token::signed(&token::claims("1"), algorithm, &secret);
                assert_eq!(status(&app, &forged).await, 401, "{name} as a secret");
            }
        }
        for (what, forged) in token::forged() {
            assert_eq!(status(&app, &forged).await, 401, "{name}: {what}");
        }
        assert!(
            app.state()
                .auth
                .issue("1", TimeDelta::hours(1), token_time())
                .is_err()
        );
    }
}

fn token_time() -> chrono::DateTime<chrono::Utc> {
    podium_tests::clock::now()
}

/// A key set takes tokens of each of its keys, whatever their `kid` says.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_verifies_by_its_keys_and_not_by_their_names() {
    let (issuers, stranger) = (Issuer::all(), Issuer::all());
    let keys: Vec<Value> = issuers
        .iter()
        .filter(|issuer| issuer.algorithm != Algorithm::RS256)
        .map(jwk)
        .collect();
    let path = file("set.json", &json!({ "keys": keys }).to_string());
    let app = with_public_key("JWT_JWKS_FILE", &path).await;
    for (issuer, other) in issuers.iter().zip(&stranger) {
        let known = issuer.algorithm != Algorithm::RS256;
        let wanted = if known { 200 } else { 401 };
        assert_eq!(
            status(&app, &issuer.sign(&token::claims("1"))).await,
            wanted
        );
        assert_eq!(status(&app, &other.sign(&token::claims("1"))).await, 401);
    }
}

fn jwk(issuer: &Issuer) -> Value {
    let raw = issuer.pair.public_key_raw();
    match issuer.algorithm {
        Algorithm::ES256 => {
            json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": base64(&raw[1..33]), "y": base64(&raw[33..])})
        }
        _ => json!({"kty": "OKP", "crv": "Ed25519", "kid": "two", "use": "sig", "x": base64(raw)}),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| {
            bits << 8 | u32::from(*group.get(at).unwrap_or(&0))
        });
        for at in 0..=group.len() {
            let digit = bits >> (18 - 6 * at) & 63;
            text.push(char::from(DIGITS[digit as usize]));
        }
    }
    text
}

/// Header and claims as they stand, signed with the good secret.
fn crafted(header: &str, claims: &str) -> String {
    let signed = format!(
        "{}.{}",
        base64(header.as_bytes()),
        base64(claims.as_bytes())
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

/// Tokens with the right signature and something wrong in them.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_signature_is_not_enough() {
    let app = TestApp::start().await;
    let now = token_time().timestamp();
    let plain = r#"{"alg":"HS256"}"#;
    let good = format!(r#""userId":1,"iat":{},"exp":{}"#, now - 1, now + 600);
    assert_eq!(
        status(&app, &crafted(plain, &format!("{{{good}}}"))).await,
        200
    );
    for (header, wanted) in [
        // Names of keys, and keys that the token brings along, are not looked at.
        (r#"{"alg":"HS256","kid":"../../../dev/null"}"#, 200),
        (r#"{"alg":"HS256","kid":"' OR 1=1 --"}"#, 200),
        (
            r#"{"alg":"HS256","jku":"https://evil.example/keys.json"}"#,
            200,
        ),
        (
            r#"{"alg":"HS256","x5u":"https://evil.example/cert.pem"}"#,
            200,
        ),
        (r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, 200),
        (r#"{"alg":"HS256","crit":["exp"]}"#, 401),
        (r#"{"alg":"HS256","crit":[]}"#, 401),
        (r#"{"alg":"HS256","b64":false}"#, 401),
        (r#"{"alg":"HS256","alg":"none"}"#, 401),
        (r#"{"alg":"none"}"#, 401),
        (r#"{"alg":"None"}"#, 401),
        (r#"{"alg":"nOnE"}"#, 401),
        (r#"{"alg":"hs256"}"#, 401),
        (r#"{"alg":"RS256"}"#, 401),
        (r#"{"alg":["HS256"]}"#, 401),
        ("{}", 401),
    ] {
        let token = crafted(header, &format!("{{{good}}}"));
        assert_eq!(status(&app, &token).await, wanted, "{header}");
    }
    for claims in [
        format!(r#"{good},"exp":{}"#, now + 600),
        format!(r#"{good},"userId":2"#),
        format!(r#"{good},"iat":1"#),
        format!(r#"{good},"aud":"podium""#),
        format!(r#"{good},"aud":[]"#),
        format!(r#"{good},"nbf":"soon""#),
        format!(r#""userId":1,"iat":{},"exp":1e300"#, now - 1),
        format!(r#""userId":1,"iat":{},"exp":9223372036854775807"#, i64::MIN),
        format!(r#""userId":1,"iat":{},"exp":null"#, now - 1),
        format!(r#""userId":1.5,"iat":{},"exp":{}"#, now - 1, now + 600),
        format!(r#""userId":"","iat":{},"exp":{}"#, now - 1, now + 600),
        format!(r#""userId":"a\nb","iat":{},"exp":{}"#, now - 1, now + 600),
        format!(
            r#""userId":{{"id":1}},"iat":{},"exp":{}"#,
            now - 1,
            now + 600
        ),
        format!(
            r#""userId":"api-key:0102030405ff","iat":{},"exp":{}"#,
            now - 1,
            now + 600
        ),
        format!(r#"{good},"padding":"{}""#, "x".repeat(8 * 1024)),
    ] {
        let token = crafted(plain, &format!("{{{claims}}}"));
        assert_eq!(status(&app, &token).await, 401, "{claims}");
    }
    for not_claims in ["[]", "1", "null", "", "{\"userId\":1", "\u{feff}{}"] {
        assert_eq!(
            status(&app, &crafted(plain, not_claims)).await,
            401,
            "{not_claims}"
        );
    }
}

/// The role in a token counts only where that is configured, and never against the table.
#[tokio::test(flavor = "multi_thread")]
async fn roles_in_tokens_count_where_they_are_trusted() {
    let with_role = |user: &str, role: Value| {
        let mut claims = token::claims(user);
        claims["role"] = role;
        token::signed(&claims, Algorithm::HS256, SECRET)
    };
    for trusted in ["true", "false"] {
        let app = TestApp::setup()
            .variable("JWT_TRUST_ROLES", trusted)
            .start()
            .await;
        app.with_role(Role::Viewer).await;
        let wanted = if trusted == "true" { 200 } else { 403 };
        assert_eq!(
            status(&app, &with_role("new", json!("admin"))).await,
            wanted
        );
        for role in ["viewer", "ADMIN", "root", ""] {
            assert_eq!(
                status(&app, &with_role("new", json!(role))).await,
                403,
                "{role}"
            );
        }
        assert_eq!(status(&app, &with_role("new", json!(["admin"]))).await, 401);
        assert_eq!(
            status(&app, &with_role("user-viewer", json!("admin"))).await,
            403
        );
    }
}

/// Within the second of `tokens_valid_after` a token is older, because its time of issue is a whole second.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_from_before_the_limit_are_refused_to_the_microsecond() {
    let clock = MockClock::standing();
    let app = TestApp::setup().clock(clock.clone()).start().await;
    app.with_role(Role::Admin).await;
    let issued = clock.now().timestamp();
    let token = app
        .state()
        .auth
        .issue("user-admin", TimeDelta::hours(1), clock.now())
        .unwrap();
    for (after, wanted) in [
        ("0 seconds", 200),
        ("0.000001 seconds", 401),
        ("-0.5 seconds", 200),
    ] {
        app.change(&format!(
            "UPDATE podium_users SET tokens_valid_after = to_timestamp({issued}) + interval '{after}'"
        ))
        .await;
        assert_eq!(status(&app, &token).await, wanted, "{after}");
    }
}

/// A configuration that says two things, or that everybody knows, does not start; and what it says is not repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_doubtful_configuration_does_not_start() {
    let issuer = &Issuer::all()[1];
    let public = file("doubtful.pem", &issuer.pem());
    let private = file("private.pem", &issuer.pair.serialize_pem());
    let secret = file("secret", SECRET);
    let (public, private) = (public.to_str().unwrap(), private.to_str().unwrap());
    let seeds = "muse_shopping_jwt_secret_key_32_chars_min_random_secure_2024";
    for variables in [
        &[("JWT_PUBLIC_KEY_FILE", public)][..],
        &[
            ("JWT_SECRET", ""),
            ("JWT_PUBLIC_KEY_FILE", public),
            ("JWT_JWKS_FILE", public),
        ],
        &[("JWT_SECRET", ""), ("JWT_PUBLIC_KEY_FILE", private)],
        &[("JWT_SECRET", ""), ("JWT_JWKS_FILE", public)],
        &[("JWT_SECRET", seeds)],
        &[("JWT_SECRET_PREVIOUS", seeds)],
        &[("JWT_SECRET", "short")],
        &[("JWT_SECRET", ""), ("HOST", "0.0.0.0")],
        &[("JWT_SECRET_FILE", secret.to_str().unwrap())],
    ] {
        let (status, printed) = ApiProcess::run(PROGRAM, &["config"], variables).await;
        let starts = variables.contains(&("HOST", "0.0.0.0"));
        assert_eq!(
            status.code(),
            Some(if starts { 0 } else { 2 }),
            "{variables:?}: {printed}"
        );
        assert!(
            !printed.contains(seeds) && !printed.contains(SECRET),
            "{printed}"
        );
    }
}

/// Refused changes are in the audit log, with the reason and without the token.
#[tokio::test(flavor = "multi_thread")]
async fn refused_changes_are_in_the_audit_log() {
    let app = TestApp::start().await;
    let viewer = app.with_role(Role::Viewer).await;
    let bad = token::signed(
        &token::claims("1"),
        Algorithm::HS256,
        "another-secret-of-more-than-32-bytes",
    );
    for _ in 0..3 {
        viewer
            .admin(Method::POST, USERS, Some(&json!({})))
            .await
            .problem(403, "forbidden");
    }
    let stranger = app.with_token(&bad);
    stranger
        .admin(Method::DELETE, &format!("{USERS}/1"), None)
        .await
        .problem(401, "unauthorized");
    viewer
        .admin(Method::GET, USERS, None)
        .await
        .problem(403, "forbidden");
    let plain = app.request(Method::PATCH, "/api/v1/admin/unknown");
    Answer::of(plain).await.problem(401, "unauthorized");
    podium_api::background::store_notes(app.state()).await;
    let rows = app
        .database()
        .rows("SELECT actor, action, entity_id, after->>'status', after->>'reason', after->>'times', address FROM audit_log ORDER BY entity_id")
        .await;
    assert_eq!(
        rows,
        [
            [
                "unknown",
                "route.refuse",
                "DELETE /api/v1/admin/users/{userId}",
                "401",
                "signature or claims are wrong",
                "1",
                "127.0.0.1"
            ],
            [
                "unknown",
                "route.refuse",
                "PATCH unknown path",
                "401",
                "no token",
                "1",
                "127.0.0.1"
            ],
            [
                "user-viewer",
                "route.refuse",
                "POST /api/v1/admin/users",
                "403",
                "role too low",
                "3",
                "127.0.0.1"
            ],
        ]
    );
    podium_api::background::store_notes(app.state()).await;
    assert_eq!(
        app.database()
            .number("SELECT count(*) FROM audit_log")
            .await,
        3
    );
}
