//! Reading experiments.

use podium_domain::experiment::{ExperimentType, Status};
use tokio_postgres::Row;

use super::model::{Experiment, ExperimentRef};
use super::rows::{self, experiment_columns, variant_columns};
use crate::database::Query;
use crate::rows::column;
use crate::{Database, StorageError};

/// One statement for an experiment and its variants, so that both are of the same version.
const READ_BY_ID: &str = concat!(
    "-- experiments::read_by_id\nSELECT ",
    experiment_columns!(),
    ", ",
    variant_columns!(),
    " FROM experiments e LEFT JOIN experiment_variants v ON v.experiment_id = e.id WHERE e.id = $1 ORDER BY v.id"
);

const READ_BY_NAME: &str = concat!(
    "-- experiments::read_by_name\nSELECT ",
    experiment_columns!(),
    ", ",
    variant_columns!(),
    " FROM experiments e LEFT JOIN experiment_variants v ON v.experiment_id = e.id WHERE e.name = $1 ORDER BY v.id"
);

const LIST: &str = concat!(
    "-- experiments::list\nSELECT ",
    experiment_columns!(),
    ", ",
    variant_columns!(),
    " FROM (
    SELECT * FROM experiments
    WHERE id < $1 AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR target = $3)
      AND ($4::text IS NULL OR experiment_type = $4)
      AND ($5::text IS NULL OR strpos(lower(name), lower($5)) > 0 OR strpos(lower(description), lower($5)) > 0)
    ORDER BY id DESC LIMIT $6) e
LEFT JOIN experiment_variants v ON v.experiment_id = e.id
ORDER BY e.id DESC, v.id"
);

const FIND_ID: &str = "-- experiments::find_id
SELECT id FROM experiments WHERE name = $1";

/// Which experiments are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those in one state.
    pub status: Option<Status>,
    /// Those on one placement.
    pub target: Option<String>,
    /// Those of one type.
    pub experiment_type: Option<ExperimentType>,
    /// Those with this text in name or description, whatever the case of its letters.
    pub search: Option<String>,
}

/// An experiment with its variants, or `None`.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn read(
    database: &Database,
    reference: &ExperimentRef,
) -> Result<Option<Experiment>, StorageError> {
    read_on(&mut database.serve().await?, reference).await
}

/// As [`read`], on a connection or in a transaction.
///
/// # Errors
/// As [`read`].
pub async fn read_on(
    link: &mut impl Query,
    reference: &ExperimentRef,
) -> Result<Option<Experiment>, StorageError> {
    let rows = match reference {
        ExperimentRef::Id(id) => link.query(READ_BY_ID, &[id]).await?,
        ExperimentRef::Name(name) => link.query(READ_BY_NAME, &[name]).await?,
    };
    Ok(grouped(&rows)?.pop())
}

/// At most `limit` experiments with ids below `below` (all, when it is `None`), newest first, with their variants.
///
/// # Errors
/// As [`read`].
pub async fn list(
    database: &Database,
    filter: &Filter,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<Experiment>, StorageError> {
    let below = below.unwrap_or(i64::MAX);
    let status = filter.status.map(Status::name);
    let kind = filter.experiment_type.map(ExperimentType::name);
    let mut link = database.serve().await?;
    let rows = link
        .query(
            LIST,
            &[
                &below,
                &status,
                &filter.target,
                &kind,
                &filter.search,
                &limit,
            ],
        )
        .await?;
    grouped(&rows)
}

/// The id that a reference stands for. An id is taken as it is, whether the experiment is still there or not: the audit
/// log goes on after a draft was deleted.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn id_of(
    database: &Database,
    reference: &ExperimentRef,
) -> Result<Option<i64>, StorageError> {
    let name = match reference {
        ExperimentRef::Id(id) => return Ok(Some(*id)),
        ExperimentRef::Name(name) => name,
    };
    let row = database.serve().await?.query_opt(FIND_ID, &[name]).await?;
    row.map(|row| column(&row, "experiments", "id")).transpose()
}

/// Rows of experiments, each repeated for every variant.
fn grouped(rows: &[Row]) -> Result<Vec<Experiment>, StorageError> {
    let mut experiments: Vec<Experiment> = Vec::new();
    for row in rows {
        let id: i64 = column(row, "experiments", "id")?;
        if experiments.last().is_none_or(|last| last.id != id) {
            experiments.push(rows::experiment(row)?);
        }
        let variant: Option<i64> = column(row, "experiment_variants", "variant_id")?;
        if let (Some(_), Some(experiment)) = (variant, experiments.last_mut()) {
            experiment.variants.push(rows::variant(row)?);
        }
    }
    Ok(experiments)
}
