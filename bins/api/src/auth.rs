//! Who is asking, and what he may do.
//!
//! A handler of a guarded route takes a [`Granted<R>`], which only this module can make, so a route without a check
//! does not compile into the table of guarded routes.

use std::marker::PhantomData;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use podium_domain::text;
use podium_serving::snapshot::Snapshot;
use podium_storage::api_keys::Scope;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Secret};

pub mod api_keys;
pub mod refusals;
pub mod signatures;

use api_keys::KeyUses;
pub use api_keys::{Credential, Presented};
use refusals::Refusal;
use signatures::VerifyingKey;

/// Longest life of a token.
const MAX_LIFETIME: TimeDelta = TimeDelta::hours(24);
/// Clocks of signer and verifier may differ by this much.
const LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Creates and changes experiments.
    Editor,
    /// Starts, stops, promotes, rolls back.
    Promoter,
    /// Everything.
    Admin,
}

impl Role {
    /// Reads the name of a role.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor, Self::Promoter, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Its name in the database and in tokens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Promoter => "promoter",
            Self::Admin => "admin",
        }
    }
}

/// A role as a type, so that a handler's signature says who may call it.
pub trait RequiredRole: 'static {
    /// The least role that may.
    const ROLE: Role;
    /// The least scope of an API key that may.
    const KEY: Scope;
}

macro_rules! required_roles {
    ($($(#[$doc:meta])* $name:ident => $role:expr, $key:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl RequiredRole for $name {
            const ROLE: Role = $role;
            const KEY: Scope = $key;
        }
    )* };
}

required_roles! {
    /// At least [`Role::Viewer`], or a key of a server, which may read definitions.
    Definitions => Role::Viewer, Scope::Server;
    /// At least [`Role::Viewer`].
    Viewer => Role::Viewer, Scope::Admin;
    /// At least [`Role::Editor`].
    Editor => Role::Editor, Scope::Admin;
    /// At least [`Role::Promoter`].
    Promoter => Role::Promoter, Scope::Admin;
    /// At least [`Role::Admin`].
    Admin => Role::Admin, Scope::Admin;
}

/// Proof that the caller was checked and has at least the role `R`.
#[derive(Clone, Debug)]
pub struct Granted<R: RequiredRole> {
    actor: String,
    role: Role,
    _role: PhantomData<R>,
}

impl<R: RequiredRole> Granted<R> {
    /// The user's id, for the audit log.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The role that the user really has.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }
}

/// Checks bearer tokens and API keys.
pub struct Auth {
    keys: Vec<VerifyingKey>,
    signing: Option<EncodingKey>,
    issuer: Option<String>,
    audience: Option<String>,
    trust_roles: bool,
    bootstrap_admin: String,
    /// When keys were used, to be stored later.
    pub uses: KeyUses,
}

/// A user id in a token: a number or a string.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum UserId {
    Number(i64),
    Text(String),
}

impl UserId {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Claims that are read; all others are ignored. A claim given twice does not deserialise.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    #[serde(rename = "userId", skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<UserId>,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
}

impl Auth {
    /// Keys and rules from the configuration; `secret` is the one in force (configured, or made for a private start), if
    /// tokens are signed with one.
    #[must_use]
    pub fn new(config: &Config, secret: Option<&Secret>) -> Self {
        let secrets = secret.into_iter().chain(&config.jwt_secret_previous);
        let keys = match &config.jwt_public_keys {
            Some(keys) => keys.clone(),
            None => secrets.map(VerifyingKey::secret).collect(),
        };
        Self {
            keys,
            signing: secret.map(|secret| EncodingKey::from_secret(secret.expose().as_bytes())),
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
            trust_roles: config.jwt_trust_roles,
            bootstrap_admin: config.bootstrap_admin.clone(),
            uses: KeyUses::default(),
        }
    }

    /// A token for `user`, valid for `lifetime` (at most 24 h).
    ///
    /// # Errors
    /// A message when the token cannot be made.
    pub fn issue(
        &self,
        user: &str,
        lifetime: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<String, String> {
        if lifetime <= TimeDelta::zero() || lifetime > MAX_LIFETIME {
            return Err("the lifetime must be more than 0 and at most 24 h".into());
        }
        let signing = self.signing.as_ref().ok_or(
            "tokens are verified with a public key here; whoever holds the private one issues them",
        )?;
        let claims = Claims {
            user_id: Some(
                user.parse()
                    .map_or_else(|_| UserId::Text(user.to_owned()), UserId::Number),
            ),
            sub: None,
            exp: (now + lifetime).timestamp(),
            iat: now.timestamp(),
            nbf: None,
            role: None,
            iss: self.issuer.clone(),
            aud: self.audience.clone().map(serde_json::Value::String),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, signing)
            .map_err(|e| e.to_string())
    }

    /// Checks the caller's token or key, and the role.
    ///
    /// # Errors
    /// [`Refusal`]: 401 without a valid token or key, 403 with too little role, 503 while people and keys were not read.
    pub fn grant<R: RequiredRole>(
        &self,
        presented: &Presented<'_>,
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<Granted<R>, Refusal> {
        let (actor, role, by_key) = match presented.only().map_err(Refusal::unknown)? {
            Credential::Token(token) => {
                let (user, claims) = self.read_token(token, now).map_err(Refusal::unknown)?;
                if !snapshot.is_read() {
                    return Err(Refusal::not_known_yet(Some(user)));
                }
                let role = self.role_of(&user, &claims, snapshot);
                let role = role.map_err(Refusal::unknown)?;
                (user, role, false)
            }
            Credential::Key(key) => {
                let key = self.uses.find(key, snapshot, now)?;
                let role = if key.scope == Scope::Admin {
                    Some(Role::Admin)
                } else {
                    (key.scope >= R::KEY).then_some(R::ROLE)
                };
                (api_keys::actor(&key.prefix), role, true)
            }
        };
        match role {
            Some(role) if role >= R::ROLE => Ok(Granted {
                actor,
                role,
                _role: PhantomData,
            }),
            _ => Err(Refusal::role_too_low(actor, R::ROLE, by_key)),
        }
    }

    /// Whom a valid token names, and all that it claims.
    fn read_token(
        &self,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<(String, Claims), &'static str> {
        let claims = signatures::verify(token, &self.keys)?;
        self.check_times(&claims, now)?;
        self.check_parties(&claims)?;
        let user = claims
            .user_id
            .as_ref()
            .or(claims.sub.as_ref())
            .ok_or("no user in the token")?
            .text();
        if text::check_unit_id(&user).is_err() || user.starts_with(api_keys::ACTOR) {
            return Err("the user in the token cannot be one");
        }
        Ok((user, claims))
    }

    fn check_times(&self, claims: &Claims, now: DateTime<Utc>) -> Result<(), &'static str> {
        let (now, leeway) = (now.timestamp(), LEEWAY.num_seconds());
        if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME.num_seconds() {
            return Err("lifetime longer than 24 h");
        }
        if claims.exp <= now.saturating_sub(leeway) {
            return Err("expired");
        }
        if claims.iat > now.saturating_add(leeway)
            || claims
                .nbf
                .is_some_and(|nbf| nbf > now.saturating_add(leeway))
        {
            return Err("not valid yet");
        }
        Ok(())
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), &'static str> {
        if self.issuer.is_some() && claims.iss != self.issuer {
            return Err("wrong issuer");
        }
        match (&self.audience, &claims.aud) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err("an audience, and none is configured"),
            (Some(wanted), Some(serde_json::Value::String(aud))) if aud == wanted => Ok(()),
            (Some(wanted), Some(serde_json::Value::Array(list)))
                if list.iter().any(|aud| aud == wanted) =>
            {
                Ok(())
            }
            (Some(_), _) => Err("wrong audience"),
        }
    }

    fn role_of(
        &self,
        user: &str,
        claims: &Claims,
        snapshot: &Snapshot,
    ) -> Result<Option<Role>, &'static str> {
        let users = snapshot.users();
        if let Some(known) = users.get(user) {
            if known.disabled {
                return Err("the user is disabled");
            }
            if known.tokens_valid_after.is_some_and(|after| {
                claims.iat.saturating_mul(1_000_000) < after.timestamp_micros()
            }) {
                return Err("the token is older than the user's tokens_valid_after");
            }
            return Ok(Role::parse(&known.role));
        }
        if self.trust_roles
            && let Some(role) = claims.role.as_deref().and_then(Role::parse)
        {
            return Ok(Some(role));
        }
        Ok((users.is_empty() && user == self.bootstrap_admin).then_some(Role::Admin))
    }
}
