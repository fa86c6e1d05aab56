//! Advisory locks that the kernel releases when their holder dies.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Context, Error};

/// A held lock on a file; dropping it releases the lock.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
}

impl LockGuard {
    /// Waits until nobody else holds the lock in any form.
    pub(crate) fn exclusive(file: File, path: &Path) -> Result<Self, Error> {
        file.lock().context("lock", path)?;
        Ok(Self { file })
    }

    /// Waits for a lock that others may share.
    pub(crate) fn shared(file: File, path: &Path) -> Result<Self, Error> {
        file.lock_shared().context("lock", path)?;
        Ok(Self { file })
    }

    /// Takes the exclusive lock if it is free. `Ok(None)`: somebody holds it.
    pub(crate) fn try_exclusive(file: File, path: &Path) -> Result<Option<Self>, Error> {
        Ok(try_lock(&file, path)?.then_some(Self { file }))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for LockGuard {
    /// Unlocks by name. Closing the file is not enough: a child that another thread is just
    /// forking holds a copy of the descriptor until it executes its program, and the lock with it.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "could not unlock");
        }
    }
}

/// Takes the exclusive lock without waiting; false: somebody holds it.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source).context("lock", path),
    }
}
