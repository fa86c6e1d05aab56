//! The private mode: without `DATABASE_URL` the process starts a database of its own, and keeps a signing secret
//! beside it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use podium_private_postgres::{Error, PrivatePostgres, Settings, default_data_dir, running_url};

use crate::config::{Config, ConfigError, DatabaseSettings, Secret};
use crate::ids;
use crate::server::{Resources, StartError};

/// Name of the private database.
const DATABASE: &str = "podium";

/// Why the private mode cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// The private database did not start.
    #[error("the private database cannot be started: {0}")]
    Postgres(#[from] podium_private_postgres::Error),
    /// The secret cannot be kept.
    #[error("the signing secret `{}` cannot be used", path.display())]
    Secret {
        /// File of the secret.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The task that started it died.
    #[error("the start of the private database was interrupted")]
    Interrupted,
}

/// The data folder in force.
#[must_use]
pub fn data_dir(config: &Config) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    default_data_dir(&here, config.data_dir.clone())
}

/// What a server works with: database and signing secret, those that are configured, else private ones.
///
/// # Errors
/// [`StartError`] when they cannot be had.
pub async fn resources(config: &Config) -> Result<Resources, StartError> {
    if config.jwt_secret.is_none() && config.jwt_public_keys.is_none() && !config.is_private() {
        return Err(ConfigError::MissingSecret.into());
    }
    let (database, private) = match &config.database.url {
        Some(_) => (config.database.clone(), None),
        None => private_database(start_postgres(data_dir(config)).await?),
    };
    let jwt_secret = signing_secret(config)?;
    Ok(Resources {
        database,
        jwt_secret,
        private,
    })
}

/// The database for maintenance, which needs no signing secret: the one that is configured, else the private one. That one
/// is started, unless a server has it running. It stops when what comes with its address is dropped.
///
/// # Errors
/// [`PrivateError`] when there is none.
pub async fn database(
    config: &Config,
) -> Result<(DatabaseSettings, Option<PrivatePostgres>), PrivateError> {
    if config.database.url.is_some() {
        return Ok((config.database.clone(), None));
    }
    let folder = data_dir(config);
    match start_postgres(folder.clone()).await {
        Ok(server) => Ok(private_database(server)),
        Err(PrivateError::Postgres(Error::AlreadyRunning { data_dir, pid })) => {
            let url =
                running_url(&folder, DATABASE).ok_or(Error::AlreadyRunning { data_dir, pid })?;
            Ok((DatabaseSettings::private(Secret::new(url)), None))
        }
        Err(other) => Err(other),
    }
}

fn private_database(server: PrivatePostgres) -> (DatabaseSettings, Option<PrivatePostgres>) {
    let url = Secret::new(server.url(DATABASE));
    (DatabaseSettings::private(url), Some(server))
}

/// Starts the private database of a folder.
///
/// # Errors
/// [`PrivateError::Postgres`] says what is missing or who holds the folder.
pub async fn start_postgres(data_dir: PathBuf) -> Result<PrivatePostgres, PrivateError> {
    let settings = Settings {
        install: true,
        ..Settings::new(data_dir)
    };
    tokio::task::spawn_blocking(move || PrivatePostgres::start(&settings))
        .await
        .map_err(|_| PrivateError::Interrupted)?
        .map_err(PrivateError::from)
}

/// The configured secret; in private mode the one in the data folder, which is made when it is missing. `None` where
/// tokens are verified with public keys.
///
/// # Errors
/// [`ConfigError::MissingSecret`] outside private mode, [`PrivateError::Secret`] when the file cannot be used.
pub fn signing_secret(config: &Config) -> Result<Option<Secret>, StartError> {
    if config.jwt_public_keys.is_some() || config.jwt_secret.is_some() {
        return Ok(config.jwt_secret.clone());
    }
    if !config.is_private() {
        return Err(ConfigError::MissingSecret.into());
    }
    let path = data_dir(config).join("jwt.secret");
    let kept = kept_secret(&path).map_err(|source| PrivateError::Secret { path, source })?;
    Ok(Some(kept))
}

fn kept_secret(path: &Path) -> std::io::Result<Secret> {
    match fs::read_to_string(path) {
        Ok(secret) if secret.trim().len() >= 32 => return Ok(Secret::new(secret.trim())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let secret = ids::secret_key().map_err(std::io::Error::other)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.expose().as_bytes())?;
    file.sync_all()?;
    Ok(secret)
}
