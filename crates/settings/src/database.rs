//! Where the database is.

use podium_storage::{ConnectSettings, StorageError};

use crate::{ConfigError, Secret, Source, secret};

const URL: &str = "DATABASE_URL";
const DIRECT: &str = "DATABASE_DIRECT_URL";
const OWNER: &str = "MIGRATION_DATABASE_URL";

/// The addresses of one database.
#[derive(Clone, Debug, Default)]
pub struct DatabaseSettings {
    /// `DATABASE_URL`
    pub url: Option<Secret>,
    /// `DATABASE_DIRECT_URL`: the same database past a transaction pooler.
    pub direct_url: Option<Secret>,
    /// `MIGRATION_DATABASE_URL`: the same database as its owner.
    pub migration_url: Option<Secret>,
}

impl DatabaseSettings {
    /// Reads the three variables.
    ///
    /// # Errors
    /// [`ConfigError::File`], [`ConfigError::Twice`]; [`ConfigError::Refused`] for a second address without the first one,
    /// which would be that of some other database than the private one.
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        let read = Self {
            url: secret(source, URL)?,
            direct_url: secret(source, DIRECT)?,
            migration_url: secret(source, OWNER)?,
        };
        for (name, other) in [(DIRECT, &read.direct_url), (OWNER, &read.migration_url)] {
            if other.is_some() && read.url.is_none() {
                return Err(ConfigError::Refused {
                    name,
                    problem: format!("is set without {URL}"),
                });
            }
        }
        Ok(read)
    }

    /// The one address of a private database.
    #[must_use]
    pub fn private(url: Secret) -> Self {
        Self {
            url: Some(url),
            ..Self::default()
        }
    }

    /// How requests reach it.
    ///
    /// # Errors
    /// [`ConfigError::Required`] without an address; [`ConfigError::Refused`] for what is none, as below.
    pub fn serving(&self) -> Result<ConnectSettings, ConfigError> {
        let url = self.url.as_ref();
        parse(URL, url.ok_or(ConfigError::Required { name: URL })?)
    }

    /// How to reach the server itself, past a pooler: for LISTEN, and for maintenance, which runs for long and needs a
    /// session.
    ///
    /// # Errors
    /// As [`Self::serving`].
    pub fn direct(&self) -> Result<ConnectSettings, ConfigError> {
        match &self.direct_url {
            Some(url) => parse(DIRECT, url),
            None => self.serving(),
        }
    }

    /// As whom migrations run: the owner where one is named, else whoever reaches the server itself.
    ///
    /// # Errors
    /// As [`Self::serving`].
    pub fn owner(&self) -> Result<ConnectSettings, ConfigError> {
        match &self.migration_url {
            Some(url) => parse(OWNER, url),
            None => self.direct(),
        }
    }
}

/// What the variable `name` says, which is never shown.
fn parse(name: &'static str, url: &Secret) -> Result<ConnectSettings, ConfigError> {
    ConnectSettings::parse(url.expose()).map_err(|error| ConfigError::Refused {
        name,
        problem: match error {
            StorageError::Settings(problem) => format!("cannot be used: {problem}"),
            other => format!("cannot be used: {}", other.chain()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which host would be asked, of the form `postgres://host/x`.
    fn host(settings: &ConnectSettings) -> String {
        let config = settings.config_for(podium_storage::connect::Purpose::Serve);
        format!("{:?}", config.get_hosts())
    }

    #[test]
    fn the_owner_comes_before_the_direct_address_and_that_before_the_pooler() {
        let url = ("DATABASE_URL", "postgres://pooler/x");
        let direct = ("DATABASE_DIRECT_URL", "postgres://server/x");
        let owner = ("MIGRATION_DATABASE_URL", "postgres://owner/x");
        let hosts = |read: Result<DatabaseSettings, ConfigError>| {
            let read = read.unwrap();
            [read.serving(), read.direct(), read.owner()].map(|settings| host(&settings.unwrap()))
        };
        let named = |names: [&str; 3]| names.map(|name| format!("[Tcp(\"{name}\")]"));
        assert_eq!(
            hosts(DatabaseSettings::read(&[url])),
            named(["pooler", "pooler", "pooler"])
        );
        assert_eq!(
            hosts(DatabaseSettings::read(&[url, direct])),
            named(["pooler", "server", "server"])
        );
        assert_eq!(
            hosts(DatabaseSettings::read(&[url, owner])),
            named(["pooler", "pooler", "owner"])
        );
        assert_eq!(
            hosts(DatabaseSettings::read(&[url, direct, owner])),
            named(["pooler", "server", "owner"])
        );
    }

    #[test]
    fn the_variable_at_fault_is_named_and_its_secret_is_not() {
        let good = ("DATABASE_URL", "postgres://u:hidden@pooler/x");
        let said = |name: &'static str, value: &'static str| {
            let read = DatabaseSettings::read(&[good, (name, value)]).unwrap();
            read.owner().unwrap_err().to_string()
        };
        for (name, value, problem) in [
            ("DATABASE_DIRECT_URL", "hidden", "not a PostgreSQL URL"),
            (
                "MIGRATION_DATABASE_URL",
                "postgres://u:hidden@h/x?sslmode=maybe",
                "unknown sslmode `maybe`",
            ),
        ] {
            assert_eq!(
                said(name, value),
                format!("{name} cannot be used: {problem}")
            );
        }
        let bad = DatabaseSettings::read(&[("DATABASE_URL", "http://hidden")]).unwrap();
        assert_eq!(
            bad.serving().unwrap_err().to_string(),
            "DATABASE_URL cannot be used: not a PostgreSQL URL"
        );
        assert_eq!(
            DatabaseSettings::default()
                .serving()
                .unwrap_err()
                .to_string(),
            "DATABASE_URL is required"
        );
    }

    #[test]
    fn a_second_address_needs_the_first() {
        for name in ["DATABASE_DIRECT_URL", "MIGRATION_DATABASE_URL"] {
            let error = DatabaseSettings::read(&[(name, "postgres://h/x")]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{name} is set without DATABASE_URL")
            );
        }
    }
}
