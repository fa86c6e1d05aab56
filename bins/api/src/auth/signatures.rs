//! The keys that tokens are verified with. A key brings its algorithm, so a token cannot choose one.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::Claims;
use crate::config::Secret;

/// Longest token, in bytes. Ours have some hundred; those of identity providers rarely more than two thousand.
const MAX_TOKEN: usize = 8 * 1024;
/// Every key is tried, so there may not be many.
const MAX_KEYS: usize = 16;
/// Bytes of the smallest RSA modulus that aws-lc verifies with.
const MIN_RSA_BYTES: usize = 256;

/// A key with the one algorithm that it verifies.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Only the algorithm: of a secret nothing may be shown.
impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.algorithm)
    }
}

impl VerifyingKey {
    /// The key of HS256 tokens.
    #[must_use]
    pub fn secret(secret: &Secret) -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: DecodingKey::from_secret(secret.expose().as_bytes()),
        }
    }
}

/// The public key of a PEM file (`BEGIN PUBLIC KEY`): RS256 for RSA, ES256 for P-256, EdDSA for Ed25519.
///
/// # Errors
/// `None` for anything else, private keys included: whoever can read them could sign.
#[must_use]
pub fn from_pem(pem: &str) -> Option<Vec<VerifyingKey>> {
    if pem.contains("PRIVATE KEY") || pem.matches("-----BEGIN").count() != 1 {
        return None;
    }
    let info = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (algorithm, key) = from_info(&info)?;
    is_usable(algorithm, &key).then(|| vec![VerifyingKey { algorithm, key }])
}

/// What stands before the key in the DER of a P-256 key: algorithm and curve (RFC 5480), the length, no unused bits.
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// The same of an Ed25519 key (RFC 8410).
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// The algorithm `rsaEncryption` with its empty parameters (RFC 3279).
const RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// The key of a SubjectPublicKeyInfo.
fn from_info(info: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    if let Some(point) = info.strip_prefix(P256) {
        return Some((Algorithm::ES256, DecodingKey::from_ec_der(point)));
    }
    if let Some(point) = info.strip_prefix(ED25519) {
        return Some((Algorithm::EdDSA, DecodingKey::from_ed_der(point)));
    }
    let bits = inside(0x30, info)?.strip_prefix(RSA)?;
    let pkcs1 = inside(0x03, bits)?.strip_prefix(&[0])?;
    Some((Algorithm::RS256, DecodingKey::from_rsa_der(pkcs1)))
}

/// What is inside of a DER value with this tag that ends where `der` ends.
fn inside(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 | 0x82 => {
            let (length, content) = rest.split_at_checked(usize::from(first & 3))?;
            let length = length
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, content)
        }
        _ => return None,
    };
    (content.len() == length).then_some(content)
}

/// The public keys of a JSON Web Key Set (RFC 7517).
///
/// # Errors
/// `None` when it is none, is empty or too long, or holds a key that is symmetric, private, not for signatures, or of another
/// algorithm than RS256, ES256 and EdDSA. A part that is quietly left out would be a key that nobody misses until it is used.
#[must_use]
pub fn from_jwks(json: &str) -> Option<Vec<VerifyingKey>> {
    let members: serde_json::Value = serde_json::from_str(json).ok()?;
    let keys = members.get("keys")?.as_array()?;
    if keys.is_empty() || keys.len() > MAX_KEYS || keys.iter().any(|key| key.get("d").is_some()) {
        return None;
    }
    let set: JwkSet = serde_json::from_str(json).ok()?;
    set.keys.iter().map(from_jwk).collect()
}

fn from_jwk(jwk: &Jwk) -> Option<VerifyingKey> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let stated = common.key_algorithm.map(|stated| stated.to_string());
    if stated.is_some_and(|stated| stated != format!("{algorithm:?}"))
        || common
            .public_key_use
            .as_ref()
            .is_some_and(|usage| *usage != PublicKeyUse::Signature)
    {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    is_usable(algorithm, &key).then_some(VerifyingKey { algorithm, key })
}

/// Whether the key has the size that its algorithm wants. The library notices a wrong one only when it verifies.
fn is_usable(algorithm: Algorithm, key: &DecodingKey) -> bool {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    match (algorithm, key.kind()) {
        (Algorithm::RS256, RsaModulusExponent { n, .. }) => n.len() >= MIN_RSA_BYTES,
        // PKCS#1: the modulus and about twenty bytes around it.
        (Algorithm::RS256, SecretOrDer(der)) => der.len() >= MIN_RSA_BYTES,
        // An uncompressed point of P-256.
        (Algorithm::ES256, SecretOrDer(point)) => point.len() == 65,
        (Algorithm::EdDSA, SecretOrDer(point)) => point.len() == 32,
        _ => false,
    }
}

/// The claims of a token that one of the keys has signed. Whatever its header says about keys (`kid`, `jku`, `jwk`, `x5u`)
/// is ignored.
pub(super) fn verify(token: &str, keys: &[VerifyingKey]) -> Result<Claims, &'static str> {
    if token.len() > MAX_TOKEN {
        return Err("the token is too long");
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| "not a token")?;
    // The library knows neither: a critical extension that nobody understands, and an unencoded payload.
    if header.crit.is_some() || header.extras.inner().contains_key("b64") {
        return Err("critical header not understood");
    }
    let mut fitting = keys
        .iter()
        .filter(|key| key.algorithm == header.alg)
        .peekable();
    if fitting.peek().is_none() {
        return Err("algorithm not allowed");
    }
    fitting
        .find_map(|key| jsonwebtoken::decode::<Claims>(token, &key.key, &rules(key.algorithm)).ok())
        .map(|data| data.claims)
        .ok_or("signature or claims are wrong")
}

/// Times and parties are checked by ourselves, against the clock that this process was given.
fn rules(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

    fn algorithms(keys: &Option<Vec<VerifyingKey>>) -> String {
        format!("{keys:?}")
    }

    #[test]
    fn a_pem_file_brings_its_algorithm() {
        assert_eq!(algorithms(&from_pem(KEY)), "Some([EdDSA])");
        assert_eq!(algorithms(&from_pem(&format!("{KEY}{KEY}"))), "None");
        assert_eq!(
            algorithms(&from_pem(&KEY.replace("PUBLIC", "PRIVATE"))),
            "None"
        );
        assert_eq!(algorithms(&from_pem("")), "None");
    }

    #[test]
    fn a_key_set_holds_public_keys_for_signatures_and_nothing_else() {
        let ed = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let set = |key: &str| algorithms(&from_jwks(&format!("{{\"keys\":[{{{key}}}]}}")));
        assert_eq!(set(ed), "Some([EdDSA])");
        assert_eq!(
            set(&format!("{ed},\"use\":\"sig\",\"alg\":\"EdDSA\"")),
            "Some([EdDSA])"
        );
        for refused in [
            &format!("{ed},\"use\":\"enc\""),
            &format!("{ed},\"alg\":\"ES256\""),
            &format!("{ed},\"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\""),
            r#""kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow""#,
            r#""kty":"RSA","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl","e":"AQAB""#,
        ] {
            assert_eq!(set(refused), "None", "{refused}");
        }
        assert_eq!(algorithms(&from_jwks("{\"keys\":[]}")), "None");
        assert_eq!(algorithms(&from_jwks("[]")), "None");
    }
}
