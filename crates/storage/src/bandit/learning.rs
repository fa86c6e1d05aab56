//! Which arms an experiment learns about, and by which rules. They are fixed when it begins, because a recount must find
//! the same numbers years later.

use podium_domain::bandit::{
    ArmType, BanditOptions, Rewards, experiment_options, ranks_unless_told, variant_options,
};
use podium_domain::decimal::Decimal4;
use podium_domain::event::EventType;
use podium_domain::experiment::ExperimentType;
use podium_domain::metric::Metric;
use serde_json::{Map, Value};
use tokio_postgres::{Row, Transaction};

use crate::experiments::model::{Experiment, Variant};
use crate::experiments::rows::fetch;
use crate::experiments::{ChangeError, Conflict};
use crate::rows::column;
use crate::{Database, StorageError};

/// Arm type of the variants of a bandit; the types of rankings are [`ArmType`]s.
pub const VARIANT: &str = "variant";

const EXISTS: &str = "-- learning::exists
SELECT EXISTS (SELECT 1 FROM bandit_learning) AS learns";

/// Bandits that were started and do not learn yet.
const BEGINNERS: &str = "-- learning::beginners
SELECT e.id, e.config, e.primary_metric FROM experiments e
WHERE e.experiment_type = 'bandit' AND e.status <> 'draft' AND NOT EXISTS (
    SELECT 1 FROM bandit_learning l WHERE l.experiment_id = e.id AND l.arm_type = 'variant')
ORDER BY e.id";

/// `$7`: the transaction from which on events are learned from; null for this one.
const INSERT: &str = "-- learning::insert
INSERT INTO bandit_learning (experiment_id, arm_type, attribution_seconds, rewards, by_value, max_reward, tx_id)
VALUES ($1, $2, $3, $4, $5, $6::text::numeric, coalesce($7, pg_current_xact_id()::text::bigint))
ON CONFLICT DO NOTHING";

const FIXED: &str = "-- learning::fixed
SELECT arm_type, attribution_seconds, rewards, by_value, max_reward::text AS max_reward
FROM bandit_learning WHERE experiment_id = $1 ORDER BY arm_type";

/// How rewards are counted, as it is stored.
#[derive(PartialEq, Eq)]
struct Rules {
    attribution_seconds: i64,
    rewards: Value,
    by_value: bool,
    max_reward: String,
}

impl Rules {
    fn of(options: &BanditOptions) -> Self {
        let one = Decimal4(10_000);
        let (worth, by_value, max): (Vec<(EventType, Decimal4)>, _, _) = match &options.rewards {
            Rewards::Binary(events) => (events.iter().map(|e| (*e, one)).collect(), false, one),
            Rewards::Weighted(weights) => {
                let sum = weights.iter().map(|(_, weight)| weight.units()).sum();
                (weights.clone(), false, Decimal4(sum))
            }
            Rewards::Value { event, max } => (vec![(*event, one)], true, *max),
        };
        let rewards = worth
            .into_iter()
            .map(|(event, weight)| (event.name().to_owned(), weight.to_string().into()))
            .collect::<Map<_, _>>();
        Self {
            attribution_seconds: 60 * i64::from(options.attribution_minutes),
            rewards: rewards.into(),
            by_value,
            max_reward: max.to_string(),
        }
    }
}

impl Rules {
    fn read(row: &Row) -> Result<Self, StorageError> {
        const T: &str = "bandit_learning";
        Ok(Self {
            attribution_seconds: column(row, T, "attribution_seconds")?,
            rewards: column(row, T, "rewards")?,
            by_value: column(row, T, "by_value")?,
            max_reward: column(row, T, "max_reward")?,
        })
    }

    /// Options by which they differ.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let worth = |rules: &Self| {
            (
                rules.rewards.clone(),
                rules.by_value,
                rules.max_reward.clone(),
            )
        };
        let differs = [
            ("rewards", worth(self) != worth(other)),
            (
                "attributionMinutes",
                self.attribution_seconds != other.attribution_seconds,
            ),
        ];
        differs.into_iter().filter(|d| d.1).map(|d| d.0).collect()
    }
}

/// The rules that a definition asks for, by the variant that asks; `None`: the experiment itself does.
fn asked(experiment: &Experiment, arm_type: &str) -> Vec<(Option<i64>, Rules)> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let is_bandit = experiment.experiment_type == ExperimentType::Bandit;
    let config = read(&experiment.config);
    if arm_type == VARIANT {
        let options = experiment_options(&config, experiment.primary_metric).ok();
        let options = options.filter(|_| is_bandit);
        return options.iter().map(|o| (None, Rules::of(o))).collect();
    }
    let ranking = rankings(experiment).into_iter();
    ranking.map(|(id, rules)| (Some(id), rules)).collect()
}

/// All that rules follow from. The primary metric defines the rewards where the options do not.
fn asks_for(experiment: &Experiment) -> impl Iterator<Item = (bool, &str)> {
    let variants = experiment.variants.iter();
    variants
        .map(|variant| (variant.is_control, variant.config.as_str()))
        .chain([
            (false, experiment.config.as_str()),
            (false, experiment.experiment_type.name()),
            (false, experiment.primary_metric.name()),
        ])
}

/// The variants that rank, and the rules that they ask for.
fn rankings(experiment: &Experiment) -> Vec<(i64, Rules)> {
    let ranking = ranking_options(experiment).into_iter();
    ranking
        .map(|(id, options)| (id, Rules::of(&options)))
        .collect()
}

/// The variants that rank, and by which options, whether or not anybody is ranked for now.
#[must_use]
pub fn ranking_options(experiment: &Experiment) -> Vec<(i64, BanditOptions)> {
    let read = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let is_bandit = experiment.experiment_type == ExperimentType::Bandit;
    let config = read(&experiment.config);
    let of = |variant: &Variant| {
        let ranks = ranks_unless_told(is_bandit, variant.is_control, experiment.variants.len());
        let options = variant_options(&read(&variant.config), &config, ranks);
        Some((variant.id, options.ok().flatten()?))
    };
    experiment.variants.iter().filter_map(of).collect()
}

/// Refuses a change of a definition by which a variant would rank by other rules than another one: the arms of an experiment
/// are counted once, whoever ranked them. What disagreed before is left alone, so that all else can still be changed.
fn check_agreement(before: &Experiment, after: &Experiment) -> Result<(), ChangeError> {
    let (known, asked) = (rankings(before), rankings(after));
    for one in asked.iter().filter(|one| !known.contains(one)) {
        let differs = |other: &&(i64, Rules)| other.1 != one.1;
        if let Some(other) = asked.iter().find(differs) {
            let name = |id| {
                after
                    .variant(id)
                    .map(|v| v.name.clone())
                    .unwrap_or_default()
            };
            return Err(Conflict::RankingsDisagree {
                variant: name(one.0),
                other: name(other.0),
                options: one.1.differing(&other.1),
            }
            .into());
        }
    }
    Ok(())
}

/// Refuses a change of a definition that asks for other rules than those by which the experiment learns already, or by which
/// its variants would rank by different ones. Whatever asked for others before is left alone.
///
/// # Errors
/// [`Conflict::LearningFixed`], [`Conflict::RankingsDisagree`].
pub(crate) async fn check_unchanged(
    transaction: &deadpool_postgres::Transaction<'_>,
    before: &Experiment,
    after: &Experiment,
) -> Result<(), ChangeError> {
    if asks_for(before).eq(asks_for(after)) {
        return Ok(());
    }
    check_agreement(before, after)?;
    for row in fetch(transaction, FIXED, &[&after.id]).await? {
        let arm_type: String = column(&row, "bandit_learning", "arm_type")?;
        let fixed = Rules::read(&row)?;
        let known = asked(before, &arm_type);
        let asked = asked(after, &arm_type);
        let other = asked
            .iter()
            .find(|one| one.1 != fixed && !known.contains(one));
        if let Some((_, rules)) = other {
            let options = fixed.differing(rules);
            return Err(Conflict::LearningFixed { arm_type, options }.into());
        }
    }
    Ok(())
}

/// Options of a bandit over variants. What was written past the API and makes no sense is replaced by the defaults: it
/// learns rather than not at all.
pub(super) fn options(experiment_id: i64, config: &Value, metric: Metric) -> BanditOptions {
    experiment_options(config, metric).unwrap_or_else(|faults| {
        tracing::error!(experiment.id = experiment_id, %faults, "options of a bandit cannot be read");
        BanditOptions::with_rewards(Rewards::of_metric(metric))
    })
}

/// As they are in force for an experiment: options of a bandit over its variants.
#[must_use]
pub fn options_of(experiment: &Experiment) -> BanditOptions {
    let config = serde_json::from_str(&experiment.config).unwrap_or_default();
    options(experiment.id, &config, experiment.primary_metric)
}

/// Lets bandits that were started since the last pass learn about their variants, from all of their events. Answers
/// whether anything learns.
pub(super) async fn begin(transaction: &Transaction<'_>) -> Result<bool, StorageError> {
    const T: &str = "experiments";
    for row in transaction.query(BEGINNERS, &[]).await? {
        let id: i64 = column(&row, T, "id")?;
        let metric: &str = column(&row, T, "primary_metric")?;
        let metric = metric.parse().unwrap_or(Metric::ConversionRate);
        let options = options(id, &column(&row, T, "config")?, metric);
        let rules = Rules::of(&options);
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
            &id,
            &VARIANT,
            &rules.attribution_seconds,
            &rules.rewards,
            &rules.by_value,
            &rules.max_reward,
            &Some(0_i64),
        ];
        transaction.execute(INSERT, &params).await?;
    }
    let row = transaction.query_one(EXISTS, &[]).await?;
    column(&row, "bandit_learning", "learns")
}

/// Lets an experiment learn about arms of this type from the events of later transactions. Once is enough: the rules of
/// the first call stay.
///
/// # Errors
/// [`StorageError`] when the database does not answer.
pub async fn begin_ranking(
    database: &Database,
    experiment_id: i64,
    arm_type: ArmType,
    options: &BanditOptions,
) -> Result<(), StorageError> {
    let rules = Rules::of(options);
    let mut link = database.write().await?;
    link.query(
        INSERT,
        &[
            &experiment_id,
            &arm_type.name(),
            &rules.attribution_seconds,
            &rules.rewards,
            &rules.by_value,
            &rules.max_reward,
            &None::<i64>,
        ],
    )
    .await?;
    Ok(())
}
