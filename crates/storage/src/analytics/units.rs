//! What one unit has, why, and what it did.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;

use crate::StorageError;
use crate::database::Link;
use crate::rows::column;

/// A unit in an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnitState {
    /// The user that the name stands for, when it is a session that logged in.
    pub alias_of: Option<String>,
    /// Sessions that stand for this unit.
    pub aliases: Vec<String>,
    /// Its assignment.
    pub assignment: Option<UnitAssignment>,
    /// The variant that it is pinned to.
    pub pinned: Option<Pin>,
    /// Why it is left out of the analysis, if it is.
    pub exclusion: Option<Exclusion>,
    /// What it did, as of the last fold.
    pub totals: Option<UnitTotals>,
}

/// A stored assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitAssignment {
    /// Its variant.
    pub variant_id: i64,
    /// When it was made.
    pub assigned_at: DateTime<Utc>,
    /// Epoch at that time.
    pub epoch: i32,
    /// Probability with which a bandit drew it; `None` for what no bandit drew.
    pub propensity: Option<f64>,
    /// Whether the client named the variant.
    pub by_client: bool,
    /// Session of the request that made it.
    pub session_id: Option<String>,
    /// Whether a known bot made it.
    pub is_bot: bool,
}

/// An override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// What it gets.
    pub variant_id: i64,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// Who pinned it.
    pub created_by: Option<String>,
}

/// Why a unit is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The name that was excluded: the unit's own, or one that it had before it logged in.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What a unit did since its assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named after what they count")]
pub struct UnitTotals {
    pub impressions: i64,
    pub clicks: i64,
    pub add_to_carts: i64,
    pub purchases: i64,
    /// An exact decimal as text.
    pub purchase_value: String,
    /// An exact decimal as text.
    pub engagement: String,
    pub requests: i64,
    pub errors: i64,
    pub sessions: i64,
    /// Whether it is in no figure of the experiment.
    pub excluded: bool,
}

/// One row: the name resolved, and everything that hangs on the unit.
const STATE: &str = "-- analytics::unit_state
WITH who AS (
    SELECT l.unit AS alias_of, coalesce(l.unit, $2::text) AS unit
    FROM (SELECT 1) one LEFT JOIN unit_aliases l ON l.alias_unit = $2 AND l.experiment_id = $1)
SELECT w.alias_of,
       ARRAY(SELECT l.alias_unit FROM unit_aliases l WHERE l.unit = w.unit AND l.experiment_id = $1 ORDER BY 1) AS aliases,
       a.variant_id, a.assigned_at, a.epoch, a.propensity, a.source, a.session_id, a.is_bot,
       o.variant_id AS pinned_variant_id, o.created_at AS pinned_at, o.created_by AS pinned_by,
       x.unit AS excluded_name, x.reason AS excluded_reason, x.created_at AS excluded_since,
       t.impressions, t.clicks, t.add_to_carts, t.purchases, trim_scale(t.purchase_value)::text AS purchase_value,
       trim_scale(t.engagement)::text AS engagement, t.requests, t.errors, t.sessions, t.excluded
FROM who w
LEFT JOIN user_experiment_assignments a ON a.user_id = w.unit AND a.experiment_id = $1
LEFT JOIN experiment_overrides o ON o.experiment_id = $1 AND o.unit = $2
LEFT JOIN unit_totals t ON t.experiment_id = $1 AND t.unit = w.unit
LEFT JOIN LATERAL (
    SELECT e.unit, e.reason, e.created_at FROM excluded_units e
    WHERE e.experiment_id = $1
      AND (e.unit = w.unit OR e.unit IN (SELECT l.alias_unit FROM unit_aliases l WHERE l.unit = w.unit AND l.experiment_id = $1))
    ORDER BY e.created_at LIMIT 1) x ON true";

/// What a unit, by any of its names, has in an experiment. Nothing at all is an empty state, not an error.
///
/// # Errors
/// [`StorageError`] when the database does not answer or a row cannot be read.
pub async fn state(
    link: &mut Link,
    experiment_id: i64,
    name: &str,
) -> Result<UnitState, StorageError> {
    let Some(row) = link.query_opt(STATE, &[&experiment_id, &name]).await? else {
        return Ok(UnitState::default());
    };
    Ok(UnitState {
        alias_of: column(&row, "unit_aliases", "alias_of")?,
        aliases: column(&row, "unit_aliases", "aliases")?,
        assignment: assignment(&row)?,
        pinned: pin(&row)?,
        exclusion: exclusion(&row)?,
        totals: totals(&row)?,
    })
}

fn assignment(row: &Row) -> Result<Option<UnitAssignment>, StorageError> {
    const T: &str = "user_experiment_assignments";
    let Some(variant_id) = column(row, T, "variant_id")? else {
        return Ok(None);
    };
    let source: i16 = column(row, T, "source")?;
    Ok(Some(UnitAssignment {
        variant_id,
        assigned_at: column(row, T, "assigned_at")?,
        epoch: column(row, T, "epoch")?,
        propensity: column(row, T, "propensity")?,
        by_client: source == 1,
        session_id: column(row, T, "session_id")?,
        is_bot: column(row, T, "is_bot")?,
    }))
}

fn pin(row: &Row) -> Result<Option<Pin>, StorageError> {
    const T: &str = "experiment_overrides";
    let Some(variant_id) = column(row, T, "pinned_variant_id")? else {
        return Ok(None);
    };
    Ok(Some(Pin {
        variant_id,
        created_at: column(row, T, "pinned_at")?,
        created_by: column(row, T, "pinned_by")?,
    }))
}

fn exclusion(row: &Row) -> Result<Option<Exclusion>, StorageError> {
    const T: &str = "excluded_units";
    let Some(name) = column(row, T, "excluded_name")? else {
        return Ok(None);
    };
    Ok(Some(Exclusion {
        name,
        reason: column(row, T, "excluded_reason")?,
        since: column(row, T, "excluded_since")?,
    }))
}

fn totals(row: &Row) -> Result<Option<UnitTotals>, StorageError> {
    const T: &str = "unit_totals";
    let Some(impressions) = column(row, T, "impressions")? else {
        return Ok(None);
    };
    Ok(Some(UnitTotals {
        impressions,
        clicks: column(row, T, "clicks")?,
        add_to_carts: column(row, T, "add_to_carts")?,
        purchases: column(row, T, "purchases")?,
        purchase_value: column(row, T, "purchase_value")?,
        engagement: column(row, T, "engagement")?,
        requests: column(row, T, "requests")?,
        errors: column(row, T, "errors")?,
        sessions: column(row, T, "sessions")?,
        excluded: column(row, T, "excluded")?,
    }))
}
