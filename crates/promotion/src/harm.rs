//! What the guard of a promotion decides from what it was given: pure, so that a rollback can be computed again.

use podium_domain::alerts::{self, Kind, VariantHour};
use podium_domain::guard::{self, Finding, GuardEvidence, GuardReading};
use podium_domain::stats::StatsError;
use podium_storage::rollouts::record;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What the last hour brought to those who are compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastHour {
    /// Units that were shown the winner.
    pub winner: Option<VariantHour>,
    /// Units that were shown the control, as the held back are.
    pub control: Option<VariantHour>,
}

/// What the guard found.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// What the evidence says.
    pub reading: GuardReading,
    /// Why the promotion is to be taken back; `None` where it is not.
    pub reason: Option<String>,
}

/// Judges a promotion of the variant `winner`.
///
/// # Errors
/// [`StatsError`] for counts that contradict each other: then nothing is decided.
pub fn judge(
    winner: &str,
    evidence: &GuardEvidence,
    hour: &LastHour,
) -> Result<Judged, StatsError> {
    let reading = guard::read(evidence)?;
    let reason = if reading.finding.is_harm() {
        Some(proved(winner, &reading))
    } else {
        alert(winner, &reading, hour)
    };
    Ok(Judged { reading, reason })
}

fn proved(winner: &str, reading: &GuardReading) -> String {
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

/// A critical alert on the winner that is not one on the whole site.
fn alert(winner: &str, reading: &GuardReading, hour: &LastHour) -> Option<String> {
    let critical = alerts::critical_on_winner(hour.winner.as_ref()?, hour.control.as_ref())?;
    // The guard has seen more of the held back than their last hour.
    let of_site = reading.finding == Finding::SiteErrors && critical.kind == Kind::ErrorRate;
    (!of_site).then(|| format!("critical alert on {winner}: {}", critical.message))
}

/// What a rollback was decided from, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// Evidence, with what was read from it.
    guard: Value,
    winner: String,
    hour: LastHour,
}

/// What [`again`] reads.
#[must_use]
pub fn keep(winner: &str, evidence: &GuardEvidence, hour: LastHour, judged: &Judged) -> Value {
    let kept = Kept {
        guard: record(evidence, &judged.reading),
        winner: winner.to_owned(),
        hour,
    };
    // Plain numbers and names always have a form in JSON.
    serde_json::to_value(kept).unwrap_or_default()
}

/// Judges again what was kept: the decision in the form in which rollbacks store it, and the guard's record.
///
/// # Errors
/// [`serde_json::Error`] for what cannot be read; counts that contradict each other are among it.
pub fn again(kept: &Value) -> Result<(Value, Value), serde_json::Error> {
    let kept: Kept = serde_json::from_value(kept.clone())?;
    let evidence: GuardEvidence = serde_json::from_value(kept.guard)?;
    let judged = judge(&kept.winner, &evidence, &kept.hour).map_err(serde::de::Error::custom)?;
    let verdict = if judged.reason.is_some() {
        "roll_back"
    } else {
        "keep"
    };
    let reasons: Vec<String> = judged.reason.into_iter().collect();
    Ok((
        json!({"verdict": verdict, "reasons": reasons}),
        record(&evidence, &judged.reading),
    ))
}
