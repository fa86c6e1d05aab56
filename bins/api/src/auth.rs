//! Who is asking, and what he may do.
//!
//! A handler of a guarded route takes a [`Granted<R>`], which only this module can make, so a route without a check
//! does not compile into the table of guarded routes.

use std::marker::PhantomData;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Secret};
use crate::problem::{ApiError, Code};
use podium_serving::snapshot::Snapshot;

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
}

macro_rules! required_roles {
    ($($(#[$doc:meta])* $name:ident => $role:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl RequiredRole for $name {
            const ROLE: Role = $role;
        }
    )* };
}

required_roles! {
    /// At least [`Role::Viewer`].
    Viewer => Role::Viewer;
    /// At least [`Role::Editor`].
    Editor => Role::Editor;
    /// At least [`Role::Promoter`].
    Promoter => Role::Promoter;
    /// At least [`Role::Admin`].
    Admin => Role::Admin;
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

/// Checks bearer tokens.
pub struct Auth {
    keys: Vec<DecodingKey>,
    signing: EncodingKey,
    issuer: Option<String>,
    audience: Option<String>,
    trust_roles: bool,
    bootstrap_admin: String,
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
    /// Keys and rules from the configuration; `secret` is the one in force (configured, or made for a private start).
    #[must_use]
    pub fn new(config: &Config, secret: &Secret) -> Self {
        let mut keys = vec![DecodingKey::from_secret(secret.expose().as_bytes())];
        keys.extend(
            config
                .jwt_secret_previous
                .iter()
                .map(|s| DecodingKey::from_secret(s.expose().as_bytes())),
        );
        Self {
            keys,
            signing: EncodingKey::from_secret(secret.expose().as_bytes()),
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
            trust_roles: config.jwt_trust_roles,
            bootstrap_admin: config.bootstrap_admin.clone(),
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
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
            .map_err(|e| e.to_string())
    }

    /// Checks the token and the role.
    ///
    /// # Errors
    /// 401 without a valid token, 403 with too little role. The reason is logged, the token never.
    pub fn grant<R: RequiredRole>(
        &self,
        authorization: &[&str],
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<Granted<R>, ApiError> {
        let (actor, role) = self
            .authenticate(authorization, snapshot, now)
            .map_err(|reason| {
                tracing::info!(reason, "request without a valid token refused");
                ApiError::unauthorized()
            })?;
        match role {
            Some(role) if role >= R::ROLE => Ok(Granted {
                actor,
                role,
                _role: PhantomData,
            }),
            _ => {
                tracing::info!(
                    reason = "role too low",
                    wanted = R::ROLE.name(),
                    "request refused"
                );
                Err(ApiError::new(
                    Code::Forbidden,
                    format!("this needs at least the role {}", R::ROLE.name()),
                ))
            }
        }
    }

    fn authenticate(
        &self,
        authorization: &[&str],
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<(String, Option<Role>), &'static str> {
        let [header] = authorization else {
            return Err(if authorization.is_empty() {
                "no token"
            } else {
                "more than one Authorization header"
            });
        };
        let (scheme, token) = header.split_once(' ').ok_or("not a bearer token")?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err("not a bearer token");
        }
        let claims = self.verify(token.trim())?;
        self.check_times(&claims, now)?;
        self.check_parties(&claims)?;
        let user = claims
            .user_id
            .as_ref()
            .or(claims.sub.as_ref())
            .ok_or("no user in the token")?
            .text();
        let role = self.role_of(&user, &claims, snapshot)?;
        Ok((user, role))
    }

    fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "not a token")?;
        if header.alg != Algorithm::HS256 {
            return Err("algorithm not allowed");
        }
        // The library knows neither: a critical extension that nobody understands, and an unencoded payload.
        if header.crit.is_some() || header.extras.inner().contains_key("b64") {
            return Err("critical header not understood");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Times and parties are checked below, against the clock that this process was given.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        self.keys
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &validation).ok())
            .map(|data| data.claims)
            .ok_or("signature or claims are wrong")
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
            if known
                .tokens_valid_after
                .is_some_and(|after| claims.iat < after.timestamp())
            {
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
