//! What has to be looked at all the time: alerts, the guards of promotions, rollout steps, ends of watches.
//!
//! One process does it, about once a minute: the worker, or an API replica where no worker lives. [`tick`] may be called
//! by several at once all the same: a step is taken and a watch ended once, by the statement that does it; an alert opens
//! once, by a constraint; and a promotion is rolled back once, by the engine. It reports promotions that do harm, and its
//! caller takes them back, so that nothing here can stand in the way of a rollback.

use podium_domain::alerts::{self as rules, Finding as AlertFinding, Kind};
use podium_domain::guard::{self, Finding, GuardReading};
use podium_domain::notification::{Event, Level, Message, Named, Subject};
use podium_storage::alerts::{self, Observed, Reconciled, Wanted};
use podium_storage::rollouts::{self, Watched};
use podium_storage::{Database, StorageError, outbox};
use serde_json::{Value, json};
use uuid::Uuid;

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

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ticked {
    /// Promotions that do harm, oldest first.
    pub harms: Vec<Harm>,
    /// Rollouts that took their next step.
    pub advanced: usize,
    /// Watches that ended.
    pub ended: usize,
    /// Alerts that opened and closed.
    pub alerts: Reconciled,
    /// Promotions whose guard could not be read; they are read again in the next pass.
    pub failed: usize,
}

/// One pass over everything. `notify` says whether alerts are sent, or only listed.
///
/// # Errors
/// [`StorageError`] when the database does not answer. What was done until then stays.
pub async fn tick(database: &Database, notify: bool) -> Result<Ticked, StorageError> {
    let mut ticked = Ticked::default();
    let watched = rollouts::watched(&mut database.work().await?).await?;
    let observed = alerts::observe(&mut database.work().await?).await?;
    let mut wanted = of_hour(&observed);
    let mut unread = Vec::new();
    for promotion in &watched {
        match of_promotion(database, promotion, &observed).await {
            Ok((found, harm)) => {
                wanted.extend(found);
                ticked.harms.extend(harm);
            }
            // One guard that fails must not blind the others, and what it said before holds until it is read again.
            Err(error) => {
                ticked.failed += 1;
                unread.push(promotion.experiment_id);
                tracing::error!(promotion.id = %promotion.promotion_id, error = %error.chain(), "the guard of a promotion could not be read");
            }
        }
    }
    ticked.alerts = database
        .transaction(async |tx| alerts::reconcile(tx, &wanted, &unread, notify).await)
        .await?;
    move_on(database, &watched, &mut ticked).await?;
    Ok(ticked)
}

/// Steps and ends that are due. A promotion that does harm moves no further.
async fn move_on(
    database: &Database,
    watched: &[Watched],
    ticked: &mut Ticked,
) -> Result<(), StorageError> {
    for promotion in watched {
        let id = promotion.promotion_id;
        if ticked.harms.iter().any(|harm| harm.promotion_id == id) {
            continue;
        }
        let advanced = rollouts::advance(database, id).await?;
        ticked.advanced += usize::from(advanced.is_some());
        if promotion.watch_is_over {
            let ended: Result<bool, StorageError> = database
                .transaction(async |tx| {
                    let ended = rollouts::end_watch(tx, id).await?;
                    if ended {
                        outbox::enqueue(tx, &end_of_watch(promotion)).await?;
                    }
                    Ok(ended)
                })
                .await;
            ticked.ended += usize::from(ended?);
        }
    }
    Ok(())
}

fn end_of_watch(promotion: &Watched) -> Message {
    let subject = Subject::Promotion(promotion.promotion_id);
    Message {
        experiment: Some(Named {
            id: promotion.experiment_id,
            name: promotion.experiment_name.clone(),
        }),
        variant: Some(winner(promotion)),
        ..Message::new(Event::WatchEnded, Level::Info, subject, promotion.now)
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

/// What the guard of a promotion found: alerts, and whether it does harm.
async fn of_promotion(
    database: &Database,
    promotion: &Watched,
    observed: &[Observed],
) -> Result<(Option<Wanted>, Option<Harm>), StorageError> {
    // The last look is taken when the time is over.
    if !promotion.is_watched && !promotion.watch_is_over {
        return Ok((None, None));
    }
    let mut link = database.work().await?;
    let evidence = rollouts::evidence(&mut link, promotion).await?;
    let reading = guard::read(&evidence).map_err(|error| {
        StorageError::Analytics(format!("the guard's counts make no sense: {error}"))
    })?;
    rollouts::note(&mut link, promotion, &evidence, &reading).await?;
    let hour = observed
        .iter()
        .find(|one| one.experiment.id == promotion.experiment_id);
    let critical = hour.and_then(|hour| critical_on_winner(promotion, hour));
    let reason = if reading.finding.is_harm() {
        Some(reason(promotion, &reading))
    } else if reading.finding == Finding::SiteErrors {
        None
    } else {
        critical.map(|alert| {
            format!(
                "critical alert on {}: {}",
                promotion.winner_name, alert.message
            )
        })
    };
    let harm = reason
        .filter(|_| promotion.auto_rollback)
        .map(|reason| Harm {
            promotion_id: promotion.promotion_id,
            experiment_name: promotion.experiment_name.clone(),
            evidence: json!({"guard": rollouts::record(&evidence, &reading), "reason": reason}),
            reason,
        });
    Ok((guard_alert(promotion, &reading), harm))
}

/// A critical alert on the winner that is not one on the whole site: the control, which the held-back units see, has none
/// of its kind.
fn critical_on_winner(promotion: &Watched, observed: &Observed) -> Option<AlertFinding> {
    let critical: Vec<AlertFinding> = rules::findings(&observed.hour)
        .into_iter()
        .filter(|finding| finding.level == Level::Critical)
        .collect();
    let elsewhere = |kind: Kind| {
        critical.iter().any(|other| {
            other.kind == kind && other.variant_id.is_some_and(|id| id != promotion.winner_id)
        })
    };
    let on_winner = critical
        .iter()
        .find(|found| found.variant_id == Some(promotion.winner_id) && !elsewhere(found.kind));
    on_winner.cloned()
}

fn reason(promotion: &Watched, reading: &GuardReading) -> String {
    let winner = &promotion.winner_name;
    let e = |ln_e: Option<f64>| {
        ln_e.map_or_else(String::new, |ln_e| format!(" (e = {:.3e})", ln_e.exp()))
    };
    match reading.finding {
        Finding::ErrorHarm => format!(
            "{winner} errs more than it did in the experiment{}",
            e(reading.ln_e_errors)
        ),
        _ => format!(
            "{winner} converts worse than the control since its promotion{}",
            e(reading.ln_e_conversion)
        ),
    }
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
        experiment: Named {
            id: promotion.experiment_id,
            name: promotion.experiment_name.clone(),
        },
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
