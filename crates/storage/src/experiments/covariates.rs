//! Covariates handed in: a number for each unit from before the experiment.
//!
//! Rows are staged first, a group at a time, each in a transaction of its own: a slow client holds no transaction open,
//! behind which folding would have to wait. Then one transaction takes all of them or none.

use std::pin::pin;

use deadpool_postgres::{ClientWrapper, Transaction};
use podium_domain::decimal::Decimal4;
use podium_domain::experiment::Status;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::change::{ChangeError, Conflict, Precondition};
use super::model::{Experiment, ExperimentRef};
use super::query::read;
use super::rows::{fetch, lock, one};
use crate::audit::{self, Origin, Subject};
use crate::connect::Purpose;
use crate::numeric::TenThousandths;
use crate::rows::column;
use crate::{Database, StorageError};

/// Largest covariate, and its negative the smallest.
pub const MAX_VALUE: Decimal4 = Decimal4(1_000_000_000_000 * podium_domain::decimal::UNITS_PER_ONE);

/// The covariate of a unit, as it stands in an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CovariateRow {
    /// Where it stands, a number that rises through the upload.
    pub place: i64,
    /// The unit: 1 to 255 characters, none of them a control character.
    pub unit: String,
    /// The number, from −[`MAX_VALUE`] to [`MAX_VALUE`].
    pub value: Decimal4,
}

/// What became of an upload. The last three make up the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Units in the upload.
    pub received: i64,
    /// Units that have a new covariate now.
    pub accepted: i64,
    /// Units that were assigned already, so that nothing can come before it any more.
    pub already_assigned: i64,
    /// Units that had the same covariate.
    pub unchanged: i64,
}

const COPY: &str = "-- covariates::copy
COPY covariate_uploads (upload_id, place, unit, value) FROM STDIN (FORMAT binary)";

const TYPES: [Type; 4] = [Type::UUID, Type::INT8, Type::TEXT, Type::NUMERIC];

const REPEATED: &str = "-- covariates::repeated
SELECT place
FROM (SELECT place, row_number() OVER (PARTITION BY unit COLLATE \"C\" ORDER BY place) AS nth
      FROM covariate_uploads WHERE upload_id = $1) s
WHERE nth > 1 ORDER BY place LIMIT $2";

const FORGET: &str = "-- covariates::forget
DELETE FROM covariate_uploads WHERE upload_id = $1";

const FORGET_ABANDONED: &str = "-- covariates::forget_abandoned
DELETE FROM covariate_uploads WHERE arrived_at < now() - interval '1 hour'";

/// A name is taken when it has an assignment, or had one before it logged in. An assignment that commits beside this
/// statement is not seen; then transaction ids decide whose covariate it was. In the order of units, because in that order
/// a million of them find their places in the indexes without running to and fro.
const STORE: &str = "-- covariates::store
WITH judged AS MATERIALIZED (
    SELECT s.unit, s.value, a.user_id IS NOT NULL OR l.alias_unit IS NOT NULL AS assigned, c.value AS known
    FROM (SELECT unit, value FROM covariate_uploads WHERE upload_id = $2 ORDER BY unit) s
    LEFT JOIN user_experiment_assignments a ON a.user_id = s.unit AND a.experiment_id = $1
    LEFT JOIN unit_aliases l ON l.alias_unit = s.unit AND l.experiment_id = $1
    LEFT JOIN LATERAL (
        SELECT v.value FROM unit_covariates v WHERE v.experiment_id = $1 AND v.unit = s.unit
        ORDER BY v.tx_id DESC LIMIT 1) c ON true),
stored AS (
    INSERT INTO unit_covariates (experiment_id, unit, value, tx_id)
    SELECT $1, unit, value, (SELECT pg_current_xact_id()::text::bigint) FROM judged
    WHERE NOT assigned AND known IS DISTINCT FROM value
    RETURNING unit)
SELECT count(*) AS received, (SELECT count(*) FROM stored) AS accepted,
       count(*) FILTER (WHERE assigned) AS already_assigned,
       count(*) FILTER (WHERE NOT assigned AND known = value) AS unchanged
FROM judged";

/// Passes when an experiment takes covariates: in other states it assigns nobody new before somebody looks at it again.
///
/// # Errors
/// [`ChangeError::NotFound`], [`Conflict::CovariatesClosed`].
pub async fn check(database: &Database, reference: &ExperimentRef) -> Result<(), ChangeError> {
    let found = read(database, reference).await?;
    check_open(&found.ok_or(ChangeError::NotFound("this experiment"))?)
}

fn check_open(experiment: &Experiment) -> Result<(), ChangeError> {
    match experiment.status {
        Status::Draft | Status::Running => Ok(()),
        status => Err(Conflict::CovariatesClosed(status).into()),
    }
}

/// Deletes what is left of uploads that were neither committed nor given up.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn forget_abandoned(database: &Database) -> Result<(), StorageError> {
    database.work().await?.query(FORGET_ABANDONED, &[]).await?;
    Ok(())
}

/// An upload in the course of arriving.
pub struct Upload {
    id: Uuid,
    client: ClientWrapper,
    _room: OwnedSemaphorePermit,
}

impl Upload {
    /// Begins an upload with an id that no other one has, on a connection of its own: its end may take minutes, which no
    /// pool is made for.
    ///
    /// # Errors
    /// [`StorageError::QueueFull`] while other uploads run; [`StorageError`] when the database does not answer.
    pub async fn begin(database: &Database, id: Uuid) -> Result<Self, StorageError> {
        let room = database.room_for_upload()?;
        Ok(Self {
            id,
            client: database.settings().connect_alone(Purpose::Upload).await?,
            _room: room,
        })
    }

    /// Takes some more rows.
    ///
    /// # Errors
    /// [`StorageError`] when the database does not take them.
    pub async fn stage(&self, rows: &[CovariateRow]) -> Result<(), StorageError> {
        if rows.is_empty() {
            return Ok(());
        }
        in_time(copy(&self.client, self.id, rows)).await
    }

    /// The first `limit` places at which a unit stands that stood in the upload before, in their order.
    ///
    /// # Errors
    /// [`StorageError`] when the database does not answer.
    pub async fn repeated(&self, limit: usize) -> Result<Vec<i64>, StorageError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = in_time(async {
            let statement = self.client.prepare_cached(REPEATED).await?;
            Ok(self.client.query(&statement, &[&self.id, &limit]).await?)
        })
        .await?;
        rows.iter()
            .map(|row| column(row, "covariate_uploads", "place"))
            .collect()
    }

    /// Gives the upload up.
    ///
    /// # Errors
    /// [`StorageError`] when the database does not answer; [`forget_abandoned`] sweeps up later.
    pub async fn forget(self) -> Result<(), StorageError> {
        in_time(async {
            let statement = self.client.prepare_cached(FORGET).await?;
            self.client.execute(&statement, &[&self.id]).await?;
            Ok(())
        })
        .await
    }

    /// Puts the upload in force, in one transaction. No unit may stand in it twice.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`Conflict::CovariatesClosed`], [`ChangeError::Storage`]; nothing is in force then.
    pub async fn commit(
        mut self,
        origin: &Origin,
        reference: &ExperimentRef,
    ) -> Result<Outcome, ChangeError> {
        let stored = timeout(Purpose::Upload.client_limit(), async {
            let transaction = self
                .client
                .transaction()
                .await
                .map_err(StorageError::from)?;
            let outcome = store(&transaction, origin, reference, self.id).await?;
            transaction.commit().await.map_err(StorageError::from)?;
            Ok(outcome)
        })
        .await
        .unwrap_or_else(|_| Err(StorageError::TimedOut.into()));
        if stored.is_err() {
            // What a failure leaves behind is swept up by the hour, too.
            let _ = self.forget().await;
        }
        stored
    }
}

/// A frozen server enforces no limit of its own.
async fn in_time<T>(
    step: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    timeout(Purpose::Upload.client_limit(), step)
        .await
        .unwrap_or(Err(StorageError::TimedOut))
}

async fn copy(client: &ClientWrapper, id: Uuid, rows: &[CovariateRow]) -> Result<(), StorageError> {
    let statement = client.prepare_cached(COPY).await?;
    let sink = client.copy_in(&statement).await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &TYPES));
    for row in rows {
        let value = TenThousandths(row.value.units());
        let values: [&(dyn ToSql + Sync); 4] = [&id, &row.place, &row.unit, &value];
        writer.as_mut().write(&values).await?;
    }
    writer.as_mut().finish().await?;
    Ok(())
}

async fn store(
    tx: &Transaction<'_>,
    origin: &Origin,
    reference: &ExperimentRef,
    upload: Uuid,
) -> Result<Outcome, ChangeError> {
    const T: &str = "unit_covariates";
    let experiment = lock(tx, reference, &Precondition::Any).await?.experiment;
    check_open(&experiment)?;
    let rows = fetch(tx, STORE, &[&experiment.id, &upload]).await?;
    let row = one(&rows, T)?;
    let outcome = Outcome {
        received: column(row, T, "received")?,
        accepted: column(row, T, "accepted")?,
        already_assigned: column(row, T, "already_assigned")?,
        unchanged: column(row, T, "unchanged")?,
    };
    fetch(tx, FORGET, &[&upload]).await?;
    let subject = Subject::new("covariates", "upload", &experiment.id, Some(experiment.id));
    // How many, never which: the log is kept for ever.
    audit::append(tx, origin, &subject, None, Some(audit::whole(&outcome)?)).await?;
    Ok(outcome)
}
