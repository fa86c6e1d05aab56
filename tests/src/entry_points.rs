//! What must hold for every input of the entry points that strangers, and those who write settings, reach. Each function takes
//! any bytes and panics when something does not hold.
//!
//! Two callers hand them inputs: `tests/it/entry_points.rs`, seeded, on every compiler; and the targets of `fuzz/`, which let
//! libFuzzer think of some. To add an entry point, write its function here, name it in [`ALL`], and write a target of one
//! line in `fuzz/fuzz_targets`.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, EncodingKey};
use podium_api::auth::{Auth, Presented, Viewer};
use podium_api::config::{Config, Secret, Source};
use podium_api::json;
use podium_domain::bucketing::{Allocation, Bucketing, HashVersion, VariantTable};
use podium_domain::fault::{Faults, Pointer};
use podium_domain::ids::VariantId;
use podium_serving::snapshot::Snapshot;

/// An entry point.
pub type EntryPoint = fn(&[u8]);

/// Every entry point with the name of its corpus below `fuzz/corpus`.
pub const ALL: [(&str, EntryPoint); 4] = [
    ("json", json),
    ("jwt", jwt),
    ("bucketing", bucketing),
    ("config", config),
];

/// The strict reader takes nothing that is no JSON, and reads what it takes as everybody else does.
///
/// # Panics
/// When that does not hold.
pub fn json(data: &[u8]) {
    let Ok(node) = json::parse(data) else {
        return;
    };
    // Numbers of any size are read as text and judged by their field, so only the grammar is compared.
    let known: Result<Box<serde_json::value::RawValue>, _> = serde_json::from_slice(data);
    assert!(known.is_ok(), "taken, although it is no JSON");
    let mut faults = Faults::new();
    json::check_texts(&node, &Pointer::root(), &mut faults);
}

const SECRET: &str = "a-secret-of-the-fuzzer-that-nobody-else-uses";
const NOW: i64 = 1_800_000_000;

static AUTH: LazyLock<Auth> = LazyLock::new(|| {
    let config = Config::read(&Variables(HashMap::new())).expect("defaults are valid");
    Auth::new(&config, Some(&Secret::new(SECRET)))
});

/// The first byte chooses: any header line, a payload under the right signature, or a head and a payload under it. Whoever gets
/// in has an expiry and a moment of issue not a day apart, of the only algorithm.
///
/// # Panics
/// When that does not hold.
pub fn jwt(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let (token, head, payload) = match kind % 3 {
        0 => (String::from_utf8_lossy(rest).into_owned(), None, None),
        1 => signed(br#"{"alg":"HS256","typ":"JWT"}"#, rest),
        _ => {
            let at = rest
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(rest.len());
            let (head, payload) = rest.split_at(at);
            signed(head, payload.get(1..).unwrap_or_default())
        }
    };
    let header = if head.is_some() {
        format!("Bearer {token}")
    } else {
        token
    };
    let now = DateTime::<Utc>::from_timestamp(NOW, 0).expect("a moment");
    let presented = Presented {
        authorization: vec![&header],
        api_key: Vec::new(),
    };
    if AUTH
        .grant::<Viewer>(&presented, &Snapshot::default(), now)
        .is_err()
    {
        return;
    }
    let head: serde_json::Value = read(&head.expect("a foreign signature cannot be valid"));
    assert_eq!(head["alg"], "HS256");
    let claims = read(&payload.expect("head and payload come together"));
    let (issued, expires) = (claims["iat"].as_i64(), claims["exp"].as_i64());
    let (issued, expires) = (
        issued.expect("iat is there"),
        expires.expect("exp is there"),
    );
    assert!(expires - issued <= 86_400 && expires > NOW - 31 && issued <= NOW + 30);
}

/// Claims that nobody reads may hold bytes that are no text.
fn read(bytes: &[u8]) -> serde_json::Value {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text).expect("what was granted is JSON")
}

fn signed(head: &[u8], payload: &[u8]) -> (String, Option<Vec<u8>>, Option<Vec<u8>>) {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    let token = format!("{message}.{}", signature.expect("HS256 signs"));
    (token, Some(head.to_vec()), Some(payload.to_vec()))
}

/// Any weights, allocation, salt and unit: the draw is the same every time, retired variants get nobody, and a larger allocation
/// throws nobody out.
///
/// # Panics
/// When that does not hold.
pub fn bucketing(data: &[u8]) {
    let [version, allocation @ .., _] = data.get(..6).unwrap_or_default() else {
        return;
    };
    let allocation: [u8; 4] = allocation.try_into().expect("four bytes lie between");
    let units = u32::from_le_bytes(allocation) % 1_000_001;
    let count = usize::from(data[5] % 20);
    let Some((weights, texts)) = data[6..].split_at_checked(count * 4) else {
        return;
    };
    let weight = |bytes: &[u8]| u64::from(u32::from_le_bytes(bytes.try_into().expect("four")));
    let variants: Vec<(VariantId, u64)> = (1..)
        .filter_map(VariantId::new)
        .zip(weights.chunks_exact(4).map(weight))
        .collect();
    let Ok(split) = VariantTable::new(&variants) else {
        return;
    };
    let texts = String::from_utf8_lossy(texts);
    let (salt, unit) = texts.split_at(texts.char_indices().nth(8).map_or(0, |(at, _)| at));
    let place = |units: u32| {
        let version = HashVersion::from_number(i64::from(version % 2) + 1).expect("1 or 2");
        let allocation = Allocation::from_units(units).expect("at most a hundred percent");
        let split = split.clone();
        let salt = salt.to_owned();
        Bucketing {
            salt,
            version,
            allocation,
            split,
        }
        .place(unit)
    };
    let placed = place(units);
    assert_eq!(placed, place(units));
    if let Some(at) = placed {
        assert!(variants[at].1 > 0, "a retired variant was given");
        assert_eq!(place(1_000_000), placed, "more traffic moved the unit");
    }
}

struct Variables(HashMap<String, String>);

impl Source for Variables {
    fn get(&self, name: &str) -> Option<String> {
        // Files of the machine are nobody's input.
        self.0
            .get(name)
            .filter(|_| !name.ends_with("_FILE"))
            .cloned()
    }
}

/// Lines `NAME=value`, as an environment: the start is refused with the variable's name, or what is printed shows no secret.
///
/// # Panics
/// When that does not hold.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let variables: HashMap<String, String> = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let secret = variables.get("JWT_SECRET").cloned();
    match Config::read(&Variables(variables)) {
        Ok(config) => {
            let shown = format!("{config:?}");
            // A short secret is refused, and a long one does not stand in the rest by chance, unless it was put there.
            let elsewhere = secret
                .as_ref()
                .is_some_and(|secret| text.matches(secret.as_str()).count() > 1);
            assert!(
                elsewhere
                    || secret.is_none_or(|secret| secret.is_empty() || !shown.contains(&secret))
            );
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
