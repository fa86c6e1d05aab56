//! The definitions in a file, for a start while the database is away.
//!
//! The file is replaced as a whole: written beside its place, made durable, and renamed. Whoever reads it sees the old
//! or the new one. It names people with roles, so only its owner may read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use podium_storage::definitions::Definitions;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Layout of the file; one of another number is not read.
const FORMAT: u32 = 1;

/// No version of a table: whatever stands there is newer than a file.
pub const FROM_FILE: i64 = -1;

/// No version of a table either: neither that nor a file was read, so that nobody knows what there is.
pub const NOTHING_READ: i64 = -2;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("the snapshot file `{}` cannot be used", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("the snapshot file `{}` does not hold definitions", path.display())]
    Content {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by another version of this program.
    #[error("the snapshot file has format {format}, not {FORMAT}")]
    Format {
        /// Number that stands in it.
        format: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct Content<D> {
    format: u32,
    definitions: D,
}

/// Where definitions are kept.
#[derive(Clone, Debug)]
pub struct DefinitionsFile {
    path: PathBuf,
}

impl DefinitionsFile {
    /// A file that need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was kept last, as older than any table; `None` where there is no file.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn load(&self) -> Result<Option<Definitions>, FileError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        // The format first: another one has other fields.
        let Content { format, .. } = self.read::<IgnoredAny>(&text)?;
        if format != FORMAT {
            return Err(FileError::Format { format });
        }
        let Content { definitions, .. } = self.read::<Definitions>(&text)?;
        Ok(Some(Definitions {
            version: FROM_FILE,
            ..definitions
        }))
    }

    fn read<'t, D: Deserialize<'t>>(&self, text: &'t [u8]) -> Result<Content<D>, FileError> {
        serde_json::from_slice(text).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// [`FileError`]; the old file stays then.
    pub fn save(&self, definitions: &Definitions) -> Result<(), FileError> {
        let content = Content {
            format: FORMAT,
            definitions,
        };
        let text = serde_json::to_vec(&content).map_err(|source| FileError::Content {
            path: self.path.clone(),
            source,
        })?;
        self.replace(&text).map_err(|source| self.io(source))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = write(&beside, text).and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            // What is half written must not fill a full disk; its own failure would say nothing new.
            let _ = fs::remove_file(&beside);
        }
        written?;
        File::open(folder)?.sync_all()
    }

    fn io(&self, source: io::Error) -> FileError {
        let path = self.path.clone();
        FileError::Io { path, source }
    }
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(test: &str) -> PathBuf {
        let name = format!("podium-snapshot-{}-{test}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn what_is_saved_is_loaded_as_older_than_any_table() {
        let folder = folder("saved");
        let file = DefinitionsFile::new(folder.join("inner/snapshot.json"));
        assert!(file.load().unwrap().is_none());
        for version in [3, 4] {
            let definitions = Definitions {
                version,
                ..Definitions::default()
            };
            file.save(&definitions).unwrap();
        }
        assert_eq!(file.load().unwrap().unwrap().version, FROM_FILE);
        let mode = fs::metadata(folder.join("inner/snapshot.json")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.join("inner")).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_such_file_is_refused_and_named() {
        let folder = folder("refused");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("snapshot.json");
        let file = DefinitionsFile::new(path.clone());
        for (text, told) in [
            ("{\"format\":1", "does not hold definitions"),
            (
                r#"{"format":2,"definitions":{"version":1,"experiments":[],"users":{}}}"#,
                "format 2",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = file.load().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
