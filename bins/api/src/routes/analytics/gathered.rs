//! What a report is made from: the evidence of the engine, read in one snapshot, and what it would decide from it.

use chrono::{DateTime, Days as CalendarDays, NaiveTime, Utc};
use podium_promotion::config::{Environment, PromotionConfig};
use podium_promotion::decide::{Decision, Question, Requester, decide};
use podium_promotion::evidence::Evidence as Examined;
use podium_promotion::gather::{evidence, experiment_layer, safety};
use podium_promotion::sums::Sums;
use podium_storage::analytics::Days;
use podium_storage::analytics::covariates::{self, VariantCovariates};
use podium_storage::analytics::moments::{self, DayMoments};
use podium_storage::database::Database;
use podium_storage::experiments::model::ExperimentRef;
use podium_storage::promotions::read::{Gathered, gather};

use super::assemble::Figures;
use super::bandit;
use super::bodies::BanditBody;
use super::compare::{Evidence, Standing};
use crate::problem::ApiError;

/// Days that traffic is called recent.
const RECENT_DAYS: u64 = 7;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// An experiment with its sums, read at one moment.
pub(super) struct Read {
    pub(super) gathered: Gathered,
    covariates: Vec<VariantCovariates>,
    /// Sums at the end of the last days.
    recent: Vec<DayMoments>,
    /// What is in force without any request.
    config: PromotionConfig,
}

/// What the engine would decide at this moment for a person who asks.
pub(super) struct Decided {
    pub(super) evidence: Examined,
    pub(super) decision: Decision,
}

impl Read {
    pub(super) async fn now(
        database: &Database,
        experiment: i64,
        environment: &Environment,
    ) -> Result<Self, ApiError> {
        let read = database.snapshot(async |tx| {
            let mut link = tx;
            let Some(gathered) = gather(tx, &ExperimentRef::Id(experiment)).await? else {
                return Ok(None);
            };
            let covariates = covariates::now(&mut link, experiment).await?;
            let today = gathered.freshness.today;
            let days = Days {
                from: today.checked_sub_days(CalendarDays::new(RECENT_DAYS)),
                to: Some(today),
            };
            let recent = moments::by_day(&mut link, experiment, days).await?;
            Ok::<_, podium_storage::StorageError>(Some((gathered, covariates, recent)))
        });
        let (gathered, covariates, recent) = read
            .await?
            .ok_or_else(|| ApiError::not_found("this experiment"))?;
        Ok(Self {
            config: environment.standing(experiment_layer(&gathered.experiment).as_ref()),
            gathered,
            covariates,
            recent,
        })
    }

    /// Takes milliseconds: not for a thread that answers page views.
    pub(super) fn decided(&self) -> Decided {
        let lookback = self.config.safety_checks.alert_lookback_hours;
        let safety = |variant| safety(&self.gathered, variant, lookback);
        let evidence = evidence(&self.gathered, &self.config, &safety);
        let question = Question {
            requester: Requester::Person,
            variant: None,
        };
        Decided {
            decision: decide(&self.config, &evidence, &question),
            evidence,
        }
    }

    /// What the engine would decide for a person who asks for this treatment.
    pub(super) fn about(&self, decided: &Decided, name: &str) -> Decision {
        let question = Question {
            requester: Requester::Person,
            variant: Some(name.to_owned()),
        };
        decide(&self.config, &decided.evidence, &question)
    }

    pub(super) const fn config(&self) -> &PromotionConfig {
        &self.config
    }

    pub(super) fn bandit(&self, decided: &Decided) -> Option<BanditBody> {
        let read = &self.gathered;
        bandit::bandit(
            &read.experiment,
            &read.epochs,
            &read.drawn,
            decided.first_epoch(),
            self.config.thresholds.min_confidence,
        )
    }

    pub(super) fn figures<'e>(&'e self, decided: &'e Decided) -> Figures<'e> {
        let read = &self.gathered;
        Figures::new(Evidence {
            sums: Sums {
                experiment: &read.experiment,
                epochs: &read.epochs,
                rows: &read.rows,
                capped: &read.capped,
                from_epoch: decided.first_epoch(),
            },
            covariates: &self.covariates,
            outcomes: &read.outcomes,
            standing: Some(Standing {
                config: &self.config,
                evidence: &decided.evidence,
            }),
            pace: self.pace(decided).unwrap_or(1.0),
            now: read.freshness.now,
        })
    }

    /// Units a day of the last days over units a day since the analysis began; `None` where a day of either is not over.
    pub(super) fn pace(&self, decided: &Decided) -> Option<f64> {
        let (from, now) = (decided.first_epoch(), self.gathered.freshness.now);
        let start = decided.evidence.analysis.as_ref()?.analysis.start;
        let first = self.recent.iter().map(|row| row.day).min()?;
        let then = first.checked_add_days(CalendarDays::new(1))?;
        let then = then.and_time(NaiveTime::MIN).and_utc().max(start);
        let parts = self.recent.iter().filter(|row| row.day == first);
        let units_then: i64 = parts
            .filter(|row| row.of.epoch >= from)
            .map(|row| row.of.moments.units)
            .sum();
        let rows = self.gathered.rows.iter().filter(|row| row.epoch >= from);
        let units: i64 = rows.map(|row| row.moments.units).sum();
        let recent = per_day(units - units_then, then, now)?;
        let average = per_day(units, start, now)?;
        (average > 0.0).then(|| recent / average)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn per_day(units: i64, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<f64> {
    let days = to.signed_duration_since(from).as_seconds_f64() / SECONDS_PER_DAY;
    (days >= 1.0).then(|| units.max(0) as f64 / days)
}

impl Decided {
    /// Units of earlier epochs are of an earlier analysis.
    pub(super) fn first_epoch(&self) -> i32 {
        let open = self.evidence.analysis.as_ref();
        open.map_or(1, |open| open.from_epoch)
    }
}
