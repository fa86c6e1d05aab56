//! An applied migration is never edited: `migrations/CHECKSUMS` keeps the MD5 of each, in the format of `md5sum -c`.
//!
//! MD5 is enough here: it guards against a slip, not against someone who wants to deceive the list next to the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::step;

const CHECKSUMS: &str = "CHECKSUMS";

/// File name to checksum.
type Sums = BTreeMap<String, String>;

/// One way in which a migration and the list disagree.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// The file is no longer what was frozen.
    Edited(String),
    /// The file was frozen and is gone.
    Gone(String),
    /// The file is not in the list yet.
    New(String),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited(file) => write!(
                f,
                "{file} was edited: restore it and write a new migration instead"
            ),
            Self::Gone(file) => write!(
                f,
                "{file} is gone: restore it, migrations are only ever added"
            ),
            Self::New(file) => write!(
                f,
                "{file} is new: run `cargo xtask migrations-freeze` when it is final"
            ),
        }
    }
}

/// Fails when a migration was edited, removed, or not frozen.
///
/// # Errors
/// [`Error::Migrations`] with every difference, [`Error::Io`].
pub(crate) fn check(_args: &[String]) -> Result<(), Error> {
    let folder = step::root().join("migrations");
    step::step("migrations-frozen", || {
        let drifts = compare(&frozen(&folder)?, &present(&folder)?);
        if drifts.is_empty() {
            Ok(())
        } else {
            Err(Error::Migrations(drifts))
        }
    })
}

/// Adds the migrations that are not in the list; it never changes a line that is there.
///
/// # Errors
/// [`Error::Migrations`] when a frozen one was edited or removed, [`Error::Io`].
pub(crate) fn freeze(_args: &[String]) -> Result<(), Error> {
    freeze_folder(&step::root().join("migrations"))
}

fn freeze_folder(folder: &Path) -> Result<(), Error> {
    let present = present(folder)?;
    let (new, broken): (Vec<_>, Vec<_>) = compare(&frozen(folder)?, &present)
        .into_iter()
        .partition(|drift| matches!(drift, Drift::New(_)));
    if !broken.is_empty() {
        return Err(Error::Migrations(broken));
    }
    let path = folder.join(CHECKSUMS);
    std::fs::write(&path, written(&present)).map_err(Error::io(&path))?;
    step::say(&format!("{} new, {} in all", new.len(), present.len()));
    Ok(())
}

fn compare(frozen: &Sums, present: &Sums) -> Vec<Drift> {
    let changed = frozen
        .iter()
        .filter_map(|(file, sum)| match present.get(file) {
            None => Some(Drift::Gone(file.clone())),
            Some(now) if now != sum => Some(Drift::Edited(file.clone())),
            Some(_) => None,
        });
    let new = present
        .keys()
        .filter(|file| !frozen.contains_key(*file))
        .cloned()
        .map(Drift::New);
    changed.chain(new).collect()
}

fn frozen(folder: &Path) -> Result<Sums, Error> {
    let path = folder.join(CHECKSUMS);
    if !path.exists() {
        return Ok(Sums::new());
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let pairs = text.lines().filter_map(|line| line.split_once("  "));
    Ok(pairs
        .map(|(sum, file)| (file.to_owned(), sum.to_owned()))
        .collect())
}

fn present(folder: &Path) -> Result<Sums, Error> {
    let mut sums = Sums::new();
    for entry in folder.read_dir().map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let content = std::fs::read(&path).map_err(Error::io(&path))?;
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            sums.insert(name, format!("{:x}", md5::compute(content)));
        }
    }
    Ok(sums)
}

fn written(sums: &Sums) -> String {
    sums.iter()
        .map(|(file, sum)| format!("{sum}  {file}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder of its own for each test, removed with it.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("podium-xtask-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn drifts(&self) -> Vec<Drift> {
            compare(&frozen(&self.0).unwrap(), &present(&self.0).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_frozen_migration_stays_what_it_was() {
        let folder = Folder::new("frozen");
        folder.write("V1__a.sql", "select 1;");
        folder.write("notes.md", "not a migration");
        assert_eq!(folder.drifts(), [Drift::New("V1__a.sql".into())]);

        freeze_folder(&folder.0).unwrap();
        assert_eq!(folder.drifts(), []);

        folder.write("V1__a.sql", "select 2;");
        folder.write("V2__b.sql", "select 3;");
        assert_eq!(
            folder.drifts(),
            [
                Drift::Edited("V1__a.sql".into()),
                Drift::New("V2__b.sql".into())
            ]
        );

        fs::remove_file(folder.0.join("V1__a.sql")).unwrap();
        assert_eq!(
            folder.drifts(),
            [
                Drift::Gone("V1__a.sql".into()),
                Drift::New("V2__b.sql".into())
            ]
        );
    }

    #[test]
    fn freezing_refuses_to_bless_an_edit() {
        let folder = Folder::new("refuses");
        folder.write("V1__a.sql", "select 1;");
        freeze_folder(&folder.0).unwrap();
        folder.write("V1__a.sql", "select 2;");
        let error = freeze_folder(&folder.0).unwrap_err();
        assert!(
            matches!(error, Error::Migrations(drifts) if drifts == [Drift::Edited("V1__a.sql".into())])
        );
        assert_eq!(folder.drifts(), [Drift::Edited("V1__a.sql".into())]);
    }

    #[test]
    fn the_list_is_in_the_format_of_md5sum() {
        let sums = Sums::from([("V1__a.sql".to_owned(), format!("{:x}", md5::compute("")))]);
        assert_eq!(
            written(&sums),
            "d41d8cd98f00b204e9800998ecf8427e  V1__a.sql\n"
        );
    }
}
