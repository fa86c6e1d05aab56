//! What has to be looked at all the time: alerts, the guards of promotions, rollout steps, ends of watches.
//!
//! One process does it, about once a minute: the worker, or an API replica where no worker lives. Several may do it at once
//! all the same: a step is taken and a watch ended once, by the statement that does it; an alert opens once, by a
//! constraint; and a promotion is rolled back once, by the engine. [`look`] finds the promotions that do harm, the caller
//! takes them back, and only then [`settle`] writes alerts, steps and ends, so that nothing of these can stand in the way
//! of a rollback.

use std::collections::BTreeSet;

use podium_domain::alerts::{self as rules, Finding as AlertFinding, Kind};
use podium_domain::guard::{self, Finding, GuardReading};
use podium_domain::notification::{Level, Named};
use podium_storage::alerts::{self, Listeners, Observed, Reconciled, Wanted};
use podium_storage::analytics::context;
use podium_storage::rollouts::{self, Watched};
use podium_storage::{Database, StorageError, outbox};
use serde_json::Value;
use uuid::Uuid;

use crate::config::Environment;
use crate::decide::MOST_LAG_SECONDS;
use crate::harm::{self, LastHour};
use crate::message;

/// A promotion that does harm and wants to be taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Harm {
    /// The promotion.
    pub promotion_id: Uuid,
    /// Name of its experiment.
    pub experiment_name: String,
    /// Why, in words.
    pub reason: String,
    /// What was found, as it is kept with the decision.
    pub evidence: Value,
}

/// What a pass has seen.
#[derive(Debug)]
pub struct Seen {
    /// Promotions that do harm and want to be taken back, oldest first.
    pub harms: Vec<Harm>,
    watched: Vec<Watched>,
    observed: Result<Vec<Observed>, StorageError>,
    wanted: Vec<Wanted>,
    /// Promotions that move no further: they do harm, or their guard could not be read.
    held: BTreeSet<Uuid>,
    /// Experiments whose guard could not be read: what it said before holds until it is read again.
    unread: Vec<i64>,
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticked {
    /// Rollouts that took their next step.
    pub advanced: usize,
    /// Watches that ended.
    pub ended: usize,
    /// Alerts that opened and closed.
    pub alerts: Reconciled,
    /// Promotions whose guard could not be read; they are read again in the next pass.
    pub failed: usize,
}

/// Reads the guards of all promotions, and what happened within the last hour. Guards are read also where the latter fails.
///
/// # Errors
/// [`StorageError`] when the list of promotions cannot be read.
pub async fn look(database: &Database) -> Result<Seen, StorageError> {
    let watched = rollouts::watched(&mut database.work().await?).await?;
    let mut seen = Seen {
        harms: Vec::new(),
        watched,
        observed: observe(database).await,
        wanted: Vec::new(),
        held: BTreeSet::new(),
        unread: Vec::new(),
    };
    let hour = seen.observed.as_deref().unwrap_or_default();
    for promotion in &seen.watched {
        let id = promotion.promotion_id;
        match of_promotion(database, promotion, hour).await {
            Ok(found) => {
                if found.is_harmful || found.harm.is_some() {
                    seen.held.insert(id);
                }
                seen.wanted.extend(found.alert);
                seen.harms.extend(found.harm);
            }
            // One guard that fails must not blind the others, and what it said before holds until it is read again.
            Err(error) => {
                seen.held.insert(id);
                seen.unread.push(promotion.experiment_id);
                tracing::error!(promotion.id = %id, error = %error.chain(), "the guard of a promotion could not be read");
            }
        }
    }
    Ok(seen)
}

async fn observe(database: &Database) -> Result<Vec<Observed>, StorageError> {
    alerts::observe(&mut database.work().await?).await
}

/// Writes what follows from what was seen. The environment says whether alerts are sent, or only listed, and to whom where
/// the experiment says nothing.
///
/// # Errors
/// [`StorageError`] when the database does not answer, or the last hour could not be read. What was done until then stays.
pub async fn settle(
    database: &Database,
    mut seen: Seen,
    environment: &Environment,
) -> Result<Ticked, StorageError> {
    let mut ticked = Ticked {
        failed: seen.unread.len(),
        ..Ticked::default()
    };
    look_back(database, &mut seen).await;
    let mut wanted = of_hour(&seen.observed?);
    wanted.extend(seen.wanted);
    let listeners =
        |level: Level, config: Option<&str>| message::alert_audience(environment, level, config);
    let tell = environment
        .notify_alerts
        .then_some(&listeners as &Listeners<'_>);
    // Each of many alerts takes a few statements.
    ticked.alerts = database
        .background_transaction(async |tx| alerts::reconcile(tx, &wanted, &seen.unread, tell).await)
        .await?;
    // What the guards have read says nothing of what is not folded, and where nobody knows how far that is, nothing moves.
    let freshness = context::freshness(&mut database.work().await?).await;
    let lag = freshness.map_or_else(
        |error| {
            tracing::warn!(error = %error.chain(), "nobody knows how far folding is, so no rollout moves on");
            None
        },
        |freshness| freshness.lag_seconds,
    );
    if lag.is_some_and(|lag| (0.0..MOST_LAG_SECONDS).contains(&lag)) {
        for promotion in &seen.watched {
            if !seen.held.contains(&promotion.promotion_id) {
                move_on(database, promotion, &mut ticked).await?;
            }
        }
    }
    Ok(ticked)
}

/// Compares with the time before. It comes after the rollbacks, because it reads many events and takes nothing back.
async fn look_back(database: &Database, seen: &mut Seen) {
    for promotion in &seen.watched {
        match conversion_before(database, promotion).await {
            Ok(found) => seen.wanted.extend(found),
            Err(error) => {
                seen.unread.push(promotion.experiment_id);
                tracing::warn!(promotion.id = %promotion.promotion_id, error = %error.chain(),
                    "conversion was not compared with the time before the promotion");
            }
        }
    }
}

/// The step and the end that are due.
async fn move_on(
    database: &Database,
    promotion: &Watched,
    ticked: &mut Ticked,
) -> Result<(), StorageError> {
    let id = promotion.promotion_id;
    let advanced = rollouts::advance(database, id).await?;
    ticked.advanced += usize::from(advanced.is_some());
    if promotion.watch_is_over {
        let ended: Result<bool, StorageError> = database
            .transaction(async |tx| {
                let ended = rollouts::end_watch(tx, id).await?;
                if ended {
                    outbox::enqueue(tx, &message::watch_ended(promotion)).await?;
                }
                Ok(ended)
            })
            .await;
        ticked.ended += usize::from(ended?);
    }
    Ok(())
}

fn experiment(promotion: &Watched) -> Named {
    Named {
        id: promotion.experiment_id,
        name: promotion.experiment_name.clone(),
    }
}

fn winner(promotion: &Watched) -> Named {
    Named {
        id: promotion.winner_id,
        name: promotion.winner_name.clone(),
    }
}

/// Alerts about the last hour.
fn of_hour(observed: &[Observed]) -> Vec<Wanted> {
    let of = |one: &Observed| -> Vec<Wanted> {
        let found = rules::findings(&one.hour);
        found
            .into_iter()
            .map(|finding| one.named(finding))
            .collect()
    };
    observed.iter().flat_map(of).collect()
}

/// What the guard of a promotion found.
#[derive(Debug, Default)]
struct Found {
    alert: Option<Wanted>,
    harm: Option<Harm>,
    /// Whether harm is proved, also where nobody wants an automatic rollback.
    is_harmful: bool,
}

async fn of_promotion(
    database: &Database,
    promotion: &Watched,
    observed: &[Observed],
) -> Result<Found, StorageError> {
    // The last look is taken when the time is over.
    if !promotion.is_watched && !promotion.watch_is_over {
        return Ok(Found::default());
    }
    let mut link = database.work().await?;
    let evidence = rollouts::evidence(&mut link, promotion).await?;
    let (winner, hour) = (&promotion.winner_name, last_hour(promotion, observed));
    let judged = harm::judge(winner, &evidence, &hour).map_err(|error| {
        StorageError::Analytics(format!("the guard's counts make no sense: {error}"))
    })?;
    rollouts::note(&mut link, promotion, &evidence, &judged.reading).await?;
    let reason = judged.reason.clone();
    let harm = reason
        .filter(|_| promotion.auto_rollback)
        .map(|reason| Harm {
            promotion_id: promotion.promotion_id,
            experiment_name: promotion.experiment_name.clone(),
            evidence: harm::keep(winner, &evidence, hour, &judged),
            reason,
        });
    Ok(Found {
        alert: guard_alert(promotion, &judged.reading),
        harm,
        is_harmful: judged.reading.finding.is_harm(),
    })
}

/// The last hour of those whom the guard compares.
fn last_hour(promotion: &Watched, observed: &[Observed]) -> LastHour {
    let mut all = observed.iter();
    let experiment = all.find(|one| one.experiment.id == promotion.experiment_id);
    let of = |id: i64| {
        let mut variants = experiment?.hour.variants.iter();
        variants.find(|variant| variant.id == id).cloned()
    };
    LastHour {
        winner: of(promotion.winner_id),
        control: promotion.control_id.and_then(of),
    }
}

/// What warns without being a test: fewer convert than in the same hour before the promotion.
async fn conversion_before(
    database: &Database,
    promotion: &Watched,
) -> Result<Option<Wanted>, StorageError> {
    if !promotion.is_watched {
        return Ok(None);
    }
    let hours = rollouts::hours(&mut database.work().await?, promotion).await?;
    let fell = hours
        .and_then(|hours| rules::conversion_fell(promotion.winner_id, hours.before, hours.now));
    Ok(fell.map(|finding| Wanted {
        experiment: experiment(promotion),
        variant: Some(winner(promotion)),
        finding,
    }))
}

/// What the guard says short of a rollback, or with one that nobody wants to be automatic.
fn guard_alert(promotion: &Watched, reading: &GuardReading) -> Option<Wanted> {
    let (kind, level, ln_e) = match reading.finding {
        Finding::Quiet => return None,
        Finding::ConversionWarning => (
            Kind::GuardConversion,
            Level::Warning,
            reading.ln_e_conversion,
        ),
        Finding::ErrorWarning => (Kind::GuardErrors, Level::Warning, reading.ln_e_errors),
        Finding::SiteErrors => (Kind::SiteErrors, Level::Critical, reading.ln_e_errors),
        // The rollback tells it.
        Finding::ConversionHarm | Finding::ErrorHarm if promotion.auto_rollback => return None,
        Finding::ConversionHarm => (
            Kind::GuardConversion,
            Level::Critical,
            reading.ln_e_conversion,
        ),
        Finding::ErrorHarm => (Kind::GuardErrors, Level::Critical, reading.ln_e_errors),
    };
    let winner = winner(promotion);
    let message = match kind {
        Kind::SiteErrors => {
            "errors have risen since the promotion, and not only with the winner: look at the site"
                .to_owned()
        }
        Kind::GuardErrors => format!("{} may err more than it did in the experiment", winner.name),
        _ => format!(
            "{} may convert worse than the control since its promotion",
            winner.name
        ),
    };
    let threshold = if level == Level::Warning {
        guard::WARN
    } else {
        guard::ROLL_BACK
    };
    let variant = (kind != Kind::SiteErrors).then_some(winner);
    Some(Wanted {
        experiment: experiment(promotion),
        finding: AlertFinding {
            variant_id: variant.as_ref().map(|variant| variant.id),
            kind,
            level,
            message,
            value: ln_e.map(f64::exp).filter(|e| e.is_finite()),
            threshold: Some(threshold),
        },
        variant,
    })
}
