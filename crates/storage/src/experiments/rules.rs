//! What a change makes of an experiment. Pure: the time is an argument, and nothing is read or written.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use podium_domain::decimal::Decimal4;
use podium_domain::experiment::{
    Action, ExperimentField, Status, VariantAtStart, VariantField, start_problems,
};
use podium_domain::fault::{Faults, code};

use super::change::{ChangeError, Conflict};
use super::model::{Experiment, ExperimentPatch, NewVariant, Variant, VariantPatch};

/// A step in the life of an experiment that a person can ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Begin assigning.
    Start,
    /// Stop assigning for a while.
    Pause,
    /// Go on after a pause.
    Resume,
    /// End it without a winner.
    Stop,
    /// End it and record a winner; serves nothing.
    DeclareWinner {
        /// The winner, a variant of the experiment.
        winner_variant_id: i64,
        /// Confidence in percent, 0 to 100, as the person who declares it states it.
        significance: Option<f64>,
    },
    /// Put it away.
    Archive,
}

impl Step {
    /// What it is in the life cycle.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Start => Action::Start,
            Self::Pause => Action::Pause,
            Self::Resume => Action::Resume,
            Self::Stop => Action::Stop,
            Self::DeclareWinner { .. } => Action::DeclareWinner,
            Self::Archive => Action::Archive,
        }
    }
}

/// The experiment after a step taken at `now`, the time of the database.
///
/// # Errors
/// [`Conflict::Transition`], [`Conflict::NotReady`]; [`ChangeError::Invalid`] when the winner is no variant of it.
pub fn step(
    experiment: &Experiment,
    step: Step,
    now: DateTime<Utc>,
) -> Result<Experiment, ChangeError> {
    let status = experiment.status.after(step.action())?;
    let mut after = Experiment {
        status,
        ..experiment.clone()
    };
    match step {
        Step::Start => {
            check_ready(experiment)?;
            after.start_date = Some(now);
        }
        Step::Pause | Step::Resume | Step::Archive => {}
        Step::Stop => after.end_date = Some(now),
        Step::DeclareWinner {
            winner_variant_id,
            significance,
        } => {
            check_winner(experiment, winner_variant_id)?;
            after.end_date = Some(now);
            after.winner_variant_id = Some(winner_variant_id);
            after.statistical_significance = significance;
        }
    }
    Ok(after)
}

fn check_ready(experiment: &Experiment) -> Result<(), Conflict> {
    let variants: Vec<VariantAtStart> = experiment
        .variants
        .iter()
        .map(|variant| VariantAtStart {
            is_control: variant.is_control,
            traffic_weight: variant.traffic_weight,
        })
        .collect();
    // A bandit with a single variant has nothing to choose among but items, so it is one over items.
    let problems = start_problems(experiment.experiment_type, true, &variants);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Conflict::NotReady(problems))
    }
}

fn check_winner(experiment: &Experiment, winner: i64) -> Result<(), ChangeError> {
    if experiment.variant(winner).is_some() {
        return Ok(());
    }
    Err(unknown_variant("/winnerVariantId"))
}

/// The refusal of a variant that is not of the experiment.
#[must_use]
pub fn unknown_variant(pointer: &str) -> ChangeError {
    let mut faults = Faults::new();
    faults.push(
        pointer,
        code::UNKNOWN_VARIANT,
        "is no variant of this experiment",
    );
    ChangeError::Invalid(faults)
}

/// The experiment after a patch. A field that is set to what it is already counts as not touched, so that a client may
/// send back what it has read.
///
/// # Errors
/// [`Conflict::Fixed`] names every field that cannot change in the present state.
pub fn patched(experiment: &Experiment, patch: &ExperimentPatch) -> Result<Experiment, Conflict> {
    fn or<T: Clone>(new: &Option<T>, old: &T) -> T {
        new.as_ref().unwrap_or(old).clone()
    }
    let old = experiment;
    let after = Experiment {
        name: or(&patch.name, &old.name),
        description: or(&patch.description, &old.description),
        experiment_type: or(&patch.experiment_type, &old.experiment_type),
        target: or(&patch.target, &old.target),
        traffic_allocation: or(&patch.traffic_allocation, &old.traffic_allocation),
        primary_metric: or(&patch.primary_metric, &old.primary_metric),
        secondary_metrics: or(&patch.secondary_metrics, &old.secondary_metrics),
        guardrails: or(&patch.guardrails, &old.guardrails),
        design: patch.design.applied_to(old.design),
        config: or(&patch.config, &old.config),
        salt: or(&patch.salt, &old.salt),
        hash_version: or(&patch.hash_version, &old.hash_version),
        ..old.clone()
    };
    let fields = fixed(changed(old, &after), |field| old.status.may_change(field));
    if fields.is_empty() {
        Ok(after)
    } else {
        Err(Conflict::Fixed {
            status: old.status,
            fields,
        })
    }
}

fn fixed<F: Copy, const N: usize>(
    touched: [(F, bool); N],
    may_change: impl Fn(F) -> bool,
) -> Vec<F> {
    touched
        .into_iter()
        .filter(|(field, changed)| *changed && !may_change(*field))
        .map(|(field, _)| field)
        .collect()
}

fn changed(old: &Experiment, new: &Experiment) -> [(ExperimentField, bool); 12] {
    use ExperimentField as F;
    [
        (F::Name, old.name != new.name),
        (F::Description, old.description != new.description),
        (
            F::ExperimentType,
            old.experiment_type != new.experiment_type,
        ),
        (F::Target, old.target != new.target),
        (
            F::TrafficAllocation,
            old.traffic_allocation != new.traffic_allocation,
        ),
        (F::PrimaryMetric, old.primary_metric != new.primary_metric),
        (
            F::SecondaryMetrics,
            old.secondary_metrics != new.secondary_metrics,
        ),
        (F::Guardrails, old.guardrails != new.guardrails),
        (F::Design, old.design != new.design),
        (F::Config, old.config != new.config),
        (F::Salt, old.salt != new.salt),
        (F::HashVersion, old.hash_version != new.hash_version),
    ]
}

/// Whether a variant can be added now.
///
/// # Errors
/// [`Conflict::NoMoreVariants`], [`Conflict::SecondControl`], [`Conflict::VariantNameTaken`].
pub fn check_new_variant(experiment: &Experiment, new: &NewVariant) -> Result<(), Conflict> {
    if !experiment.status.may_add_variant() {
        return Err(Conflict::NoMoreVariants(experiment.status));
    }
    check_siblings(experiment, None, &new.name, new.is_control)
}

/// Whether a variant can be deleted now.
///
/// # Errors
/// [`Conflict::VariantStays`].
pub fn check_variant_deletion(experiment: &Experiment) -> Result<(), Conflict> {
    if experiment.status.may_delete_variant() {
        Ok(())
    } else {
        Err(Conflict::VariantStays(experiment.status))
    }
}

/// The experiment after a patch of one of its variants, under the same rule as [`patched`].
///
/// # Errors
/// [`Conflict::VariantFixed`], [`Conflict::SecondControl`], [`Conflict::VariantNameTaken`], [`Conflict::NoTraffic`].
pub fn variant_patched(
    experiment: &Experiment,
    variant: &Variant,
    patch: &VariantPatch,
) -> Result<Variant, Conflict> {
    let after = Variant {
        name: patch.name.as_ref().unwrap_or(&variant.name).clone(),
        description: patch
            .description
            .as_ref()
            .unwrap_or(&variant.description)
            .clone(),
        traffic_weight: patch.traffic_weight.unwrap_or(variant.traffic_weight),
        config: patch.config.as_ref().unwrap_or(&variant.config).clone(),
        is_control: patch.is_control.unwrap_or(variant.is_control),
        ..variant.clone()
    };
    let status = experiment.status;
    let fields = fixed(changed_variant(variant, &after), |field| {
        status.may_change_variant(field)
    });
    if !fields.is_empty() {
        return Err(Conflict::VariantFixed { status, fields });
    }
    check_siblings(experiment, Some(variant.id), &after.name, after.is_control)?;
    let assigning = matches!(status, Status::Running | Status::Paused);
    let others = experiment
        .variants
        .iter()
        .filter(|other| other.id != variant.id);
    if assigning
        && others
            .chain([&after])
            .all(|variant| variant.traffic_weight == Decimal4::ZERO)
    {
        return Err(Conflict::NoTraffic(status));
    }
    Ok(after)
}

fn changed_variant(old: &Variant, new: &Variant) -> [(VariantField, bool); 5] {
    use VariantField as F;
    [
        (F::Name, old.name != new.name),
        (F::Description, old.description != new.description),
        (F::TrafficWeight, old.traffic_weight != new.traffic_weight),
        (F::Config, old.config != new.config),
        (F::IsControl, old.is_control != new.is_control),
    ]
}

/// The schema holds these two invariants as well; checking first gives a better answer than a failed statement.
fn check_siblings(
    experiment: &Experiment,
    id: Option<i64>,
    name: &str,
    is_control: bool,
) -> Result<(), Conflict> {
    let mut others = experiment
        .variants
        .iter()
        .filter(|other| Some(other.id) != id);
    if others.clone().any(|other| other.name == name) {
        return Err(Conflict::VariantNameTaken);
    }
    if is_control && others.any(|other| other.is_control) {
        return Err(Conflict::SecondControl);
    }
    Ok(())
}

/// Whether the change opens an epoch: at the start, and whenever the allocation, a weight or the set of variants
/// changes while units have been assigned. A pause and its end do not: the split stands still.
#[must_use]
pub fn opens_epoch(before: &Experiment, after: &Experiment) -> bool {
    let assigning = |status| matches!(status, Status::Running | Status::Paused);
    match (before.status, after.status) {
        (Status::Draft, Status::Running) => true,
        (from, to) if assigning(from) && assigning(to) => split(before) != split(after),
        _ => false,
    }
}

fn split(experiment: &Experiment) -> (Decimal4, BTreeMap<i64, Decimal4>) {
    (
        experiment.traffic_allocation,
        experiment
            .variants
            .iter()
            .map(|v| (v.id, v.traffic_weight))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_domain::bucketing::HashVersion;
    use podium_domain::experiment::ExperimentType;
    use podium_domain::metric::Metric;

    use crate::experiments::model::{Design, DesignPatch};

    fn variant(id: i64, name: &str, units: i64) -> Variant {
        Variant {
            id,
            experiment_id: 1,
            name: name.into(),
            description: String::new(),
            traffic_weight: Decimal4(units),
            config: "{}".into(),
            is_control: name == "control",
            pulls: 0,
            rewards: 0.0,
            average_reward: 0.0,
            confidence_bound: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn experiment(status: Status) -> Experiment {
        Experiment {
            id: 1,
            name: "e".into(),
            description: String::new(),
            experiment_type: ExperimentType::AbTest,
            target: "newsfeed".into(),
            status,
            start_date: None,
            end_date: None,
            traffic_allocation: Decimal4(1_000_000),
            primary_metric: Metric::ConversionRate,
            secondary_metrics: Vec::new(),
            guardrails: Vec::new(),
            design: Design::default(),
            config: "{}".into(),
            salt: "e".into(),
            hash_version: HashVersion::V2,
            epoch: 0,
            winner_variant_id: None,
            statistical_significance: None,
            version: 1,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            created_by: None,
            variants: vec![variant(1, "control", 10_000), variant(2, "b", 10_000)],
        }
    }

    fn later() -> DateTime<Utc> {
        DateTime::from_timestamp(1_000, 0).unwrap()
    }

    const DECLARE: Step = Step::DeclareWinner {
        winner_variant_id: 2,
        significance: Some(97.5),
    };

    #[test]
    fn a_start_sets_the_start_and_an_end_the_end() {
        let started = step(&experiment(Status::Draft), Step::Start, later()).unwrap();
        assert_eq!(
            (started.status, started.start_date, started.end_date),
            (Status::Running, Some(later()), None)
        );
        let running = Experiment {
            start_date: Some(DateTime::UNIX_EPOCH),
            ..experiment(Status::Running)
        };
        let paused = step(&running, Step::Pause, later()).unwrap();
        let resumed = step(&paused, Step::Resume, later()).unwrap();
        assert_eq!(resumed, running);
        let stopped = step(&paused, Step::Stop, later()).unwrap();
        assert_eq!(
            (stopped.status, stopped.end_date),
            (Status::Completed, Some(later()))
        );
        assert_eq!(
            (stopped.start_date, stopped.winner_variant_id),
            (Some(DateTime::UNIX_EPOCH), None)
        );
    }

    #[test]
    fn a_declared_winner_must_be_one_of_the_variants() {
        let ended = step(&experiment(Status::Running), DECLARE, later()).unwrap();
        assert_eq!(
            (ended.winner_variant_id, ended.statistical_significance),
            (Some(2), Some(97.5))
        );
        assert_eq!(
            (ended.status, ended.end_date),
            (Status::Completed, Some(later()))
        );
        let stranger = Step::DeclareWinner {
            winner_variant_id: 3,
            significance: None,
        };
        let refused = step(&experiment(Status::Running), stranger, later()).unwrap_err();
        assert!(
            matches!(refused, ChangeError::Invalid(faults) if faults.iter().all(|f| f.code == "unknown_variant"))
        );
    }

    #[test]
    fn a_start_needs_a_control_and_something_to_choose() {
        let mut draft = experiment(Status::Draft);
        draft.variants = vec![variant(2, "b", 0)];
        let refused = step(&draft, Step::Start, later()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "cannot start: needs at least 2 variant(s), has 1; needs exactly one control variant, has none; \
             needs a total traffic weight above 0"
        );
        draft.variants = vec![variant(1, "control", 1)];
        assert!(step(&draft, Step::Start, later()).is_err());
        draft.experiment_type = ExperimentType::Bandit;
        assert!(step(&draft, Step::Start, later()).is_ok());
    }

    #[test]
    fn a_refused_patch_names_every_fixed_field_and_no_other() {
        let patch = ExperimentPatch {
            name: Some("other".into()),
            description: Some("new".into()),
            target: Some("newsfeed".into()),
            hash_version: Some(HashVersion::V1),
            ..ExperimentPatch::default()
        };
        let fields = vec![ExperimentField::Name, ExperimentField::HashVersion];
        assert_eq!(
            patched(&experiment(Status::Running), &patch),
            Err(Conflict::Fixed {
                status: Status::Running,
                fields
            })
        );
        assert_eq!(
            patched(&experiment(Status::Draft), &patch).unwrap().name,
            "other"
        );
    }

    #[test]
    fn an_empty_patch_changes_nothing_in_any_state() {
        for status in Status::ALL.iter().copied() {
            let before = experiment(status);
            assert_eq!(
                patched(&before, &ExperimentPatch::default()),
                Ok(before.clone())
            );
            assert_eq!(
                variant_patched(&before, &before.variants[1], &VariantPatch::default()).as_ref(),
                Ok(&before.variants[1])
            );
        }
    }

    #[test]
    fn a_design_is_patched_member_by_member() {
        let patch = ExperimentPatch {
            design: DesignPatch {
                horizon_days: Some(Some(30)),
                ..DesignPatch::default()
            },
            ..ExperimentPatch::default()
        };
        let design = patched(&experiment(Status::Running), &patch)
            .unwrap()
            .design;
        assert_eq!(
            design,
            Design {
                horizon_days: Some(30),
                ..Design::default()
            }
        );
    }

    #[test]
    fn there_is_one_control_and_every_name_once() {
        let draft = experiment(Status::Draft);
        let new = NewVariant {
            name: "c".into(),
            description: String::new(),
            traffic_weight: Decimal4(1),
            config: "{}".into(),
            is_control: true,
        };
        assert_eq!(
            check_new_variant(&draft, &new),
            Err(Conflict::SecondControl)
        );
        let twin = NewVariant {
            name: "b".into(),
            is_control: false,
            ..new.clone()
        };
        assert_eq!(
            check_new_variant(&draft, &twin),
            Err(Conflict::VariantNameTaken)
        );
        let promoted = VariantPatch {
            is_control: Some(true),
            ..VariantPatch::default()
        };
        assert_eq!(
            variant_patched(&draft, &draft.variants[1], &promoted),
            Err(Conflict::SecondControl)
        );
        let fine = NewVariant {
            is_control: false,
            ..new
        };
        for status in Status::ALL.iter().copied() {
            let open = matches!(status, Status::Draft | Status::Running | Status::Paused);
            assert_eq!(
                check_new_variant(&experiment(status), &fine).is_ok(),
                open,
                "{status}"
            );
        }
    }

    #[test]
    fn traffic_cannot_be_taken_from_every_variant() {
        let mut running = experiment(Status::Running);
        running.variants[0].traffic_weight = Decimal4::ZERO;
        let zero = VariantPatch {
            traffic_weight: Some(Decimal4::ZERO),
            ..VariantPatch::default()
        };
        let refused = variant_patched(&running, &running.variants[1], &zero);
        assert_eq!(refused, Err(Conflict::NoTraffic(Status::Running)));
        running.status = Status::Draft;
        assert!(variant_patched(&running, &running.variants[1], &zero).is_ok());
    }

    #[test]
    fn an_epoch_opens_when_the_split_changes_under_way() {
        let running = experiment(Status::Running);
        let mut weight = running.clone();
        weight.variants[0].traffic_weight = Decimal4(5_000);
        let mut grown = running.clone();
        grown.variants.push(variant(3, "c", 0));
        let narrowed = Experiment {
            traffic_allocation: Decimal4(500_000),
            ..running.clone()
        };
        let renamed = Experiment {
            description: "x".into(),
            ..running.clone()
        };
        let with = |status, of: &Experiment| Experiment {
            status,
            ..of.clone()
        };
        let cases = [
            (Status::Draft, with(Status::Running, &running), true),
            (Status::Running, weight.clone(), true),
            (Status::Running, grown, true),
            (Status::Running, narrowed, true),
            (Status::Running, renamed, false),
            (Status::Running, with(Status::Paused, &running), false),
            (Status::Paused, running.clone(), false),
            (Status::Paused, with(Status::Paused, &weight), true),
            (Status::Running, with(Status::Completed, &running), false),
            (Status::Draft, with(Status::Draft, &weight), false),
        ];
        for (at, (from, after, want)) in cases.into_iter().enumerate() {
            assert_eq!(
                opens_epoch(&with(from, &running), &after),
                want,
                "case {at}"
            );
        }
    }
}
