//! Where the database is.

use podium_storage::{ConnectSettings, StorageError};

use crate::{ConfigError, Secret, Source, secret};

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
    /// [`ConfigError::File`].
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        Ok(Self {
            url: secret(source, "DATABASE_URL")?,
            direct_url: secret(source, "DATABASE_DIRECT_URL")?,
            migration_url: secret(source, "MIGRATION_DATABASE_URL")?,
        })
    }

    /// As whom migrations run: the owner where one is named, else whoever `url` names.
    ///
    /// # Errors
    /// [`StorageError::Settings`] for what is no address.
    pub fn owner(&self, url: &Secret) -> Result<ConnectSettings, StorageError> {
        ConnectSettings::parse(self.migration_url.as_ref().unwrap_or(url).expose())
    }
}
