//! The sentences, each from figures that are made up for it.

use podium_domain::decimal::Decimal4;
use podium_domain::experiment::Status;
use podium_promotion::decide::Verdict as Answer;
use podium_storage::experiments::model::Variant;

use super::super::bodies::{
    BanditArmBody, CriterionBody, GuardrailBody, Range, SequentialBody, StratifiedBody,
};
use super::super::compare::blank;
use super::*;

const B: i64 = 12;

fn variant(id: i64, name: &str) -> Variant {
    Variant {
        id,
        experiment_id: 1,
        name: name.to_owned(),
        description: String::new(),
        traffic_weight: Decimal4::ZERO,
        config: String::new(),
        is_control: false,
        pulls: 0,
        rewards: 0.0,
        average_reward: 0.0,
        confidence_bound: None,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
    }
}

fn metric(name: &'static str, role: &'static str, of: Vec<MetricComparison>) -> MetricReport {
    MetricReport {
        metric: name,
        kind: "proportion",
        role,
        winsorized: None,
        variants: Vec::new(),
        comparisons: of,
    }
}

/// A treatment whose looks are in favour.
fn winning(id: i64, name: &str) -> MetricComparison {
    let met = |measured| CriterionBody {
        measured: Some(measured),
        required: 1.0,
        met: true,
    };
    MetricComparison {
        stratified: Some(StratifiedBody {
            epochs: 1,
            statistic: 5.0,
            lift: Some(0.2),
            difference: 0.02,
            standard_error: 0.004,
            baseline: 0.1,
            information: 1.0,
            strata: None,
        }),
        sequential: Some(SequentialBody {
            confidence: met(99.0),
            lead: met(5.0),
            improvement: met(20.0),
            p_value: None,
            statistic: None,
            boundary: None,
            information: None,
            looks: 1,
            eligible: true,
            waiting: Vec::new(),
            history: Vec::new(),
        }),
        ..blank(&variant(id, name), None)
    }
}

fn guarded(verdict: Verdict) -> MetricReport {
    let guardrail = GuardrailBody {
        verdict: verdict.name(),
        p_value: None,
        margin: 0.01,
        margin_is_relative: false,
        reason: None,
    };
    let of = MetricComparison {
        guardrail: Some(guardrail),
        ..blank(&variant(B, "b"), None)
    };
    metric("error_rate", "guardrail", vec![of])
}

/// An answer of the engine.
fn answer(verdict: Answer, candidate: i64, reason: &str) -> Decision {
    Decision {
        verdict,
        criteria: Vec::new(),
        reasons: Some(reason)
            .filter(|reason| !reason.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect(),
        candidate: Some(candidate),
        figures: None,
        safety_checks: Vec::new(),
        eligible_at: None,
    }
}

const fn split(mismatch: bool) -> SplitCheck {
    SplitCheck {
        p_value: None,
        anytime_p_value: None,
        mismatch,
        reason: None,
        client_units: 0,
        chi_square: None,
        degrees_of_freedom: None,
        ln_p_value: None,
        ln_e_value: None,
        epochs: Vec::new(),
    }
}

/// The control, then treatments by their probability of being best and their interval.
fn bandit(treatments: &[(&str, f64, (f64, f64))], winner: Option<&str>) -> BanditBody {
    let arm = |(at, (name, best, (lower, upper))): (usize, &(&str, f64, (f64, f64)))| {
        let range = Range {
            lower: *lower,
            upper: *upper,
        };
        BanditArmBody {
            variant_id: 11 + i64::try_from(at).unwrap(),
            variant_name: (*name).to_owned(),
            is_control: at == 0,
            weight: 0.5,
            units: 1_000,
            conversions: 100,
            raw_rate: None,
            rate: None,
            rate_interval: None,
            rate_root_weighted: None,
            rate_root_weighted_interval: None,
            probability_best: Some(*best),
            expected_loss: None,
            difference: None,
            difference_interval: None,
            difference_anytime: (at > 0).then_some(range),
        }
    };
    let rest: f64 = treatments.iter().map(|treatment| treatment.1).sum();
    let control = ("control", 1.0 - rest, (0.0, 0.0));
    let arms: Vec<BanditArmBody> = std::iter::once(&control)
        .chain(treatments)
        .enumerate()
        .map(arm)
        .collect();
    let best = |arm: &&BanditArmBody| arm.probability_best.unwrap_or_default();
    let leader = arms.iter().max_by(|a, b| best(a).total_cmp(&best(b)));
    BanditBody {
        algorithm: "thompson",
        floor: 0.05,
        control_share: 0.1,
        epoch: 3,
        outcome: "purchase",
        leader: leader.map(|arm| arm.variant_name.clone()),
        winner: winner.map(str::to_owned),
        missing: vec!["expected loss: 0.002000, required: 0.001".to_owned()],
        note: "",
        arms,
    }
}

fn won_by_b() -> BanditBody {
    bandit(&[("b", 0.987, (0.006, 0.034))], Some("b"))
}

/// What is said of a bandit.
struct Case<'c> {
    status: Status,
    body: &'c BanditBody,
    guardrails: Vec<MetricReport>,
    decision: Decision,
    recorded: Option<i64>,
    promoted: bool,
    mismatch: bool,
}

impl<'c> Case<'c> {
    fn new(status: Status, body: &'c BanditBody) -> Self {
        Self {
            status,
            body,
            guardrails: Vec::new(),
            decision: answer(Answer::Promote, B, ""),
            recorded: None,
            promoted: false,
            mismatch: false,
        }
    }

    fn said(self) -> String {
        let mut metrics = vec![metric("conversion_rate", "primary", Vec::new())];
        metrics.extend(self.guardrails);
        verdict(&Facts {
            status: self.status,
            metrics: &metrics,
            split: &split(self.mismatch),
            bandit: Some(self.body),
            decision: &self.decision,
            about: &|_| self.decision.clone(),
            recorded: self.recorded,
            promoted: self.promoted,
            now: DateTime::UNIX_EPOCH,
            pace: 1.0,
        })
    }
}

const LEAD: &str = "it is ahead of the control by 0.600 to 3.400 percentage points in units with purchase (an interval that \
    holds at any look) and probably the best (98.7 %)";

#[test]
fn a_bandit_that_has_won_is_to_be_shipped() {
    let said = Case::new(Status::Running, &won_by_b()).said();
    assert_eq!(said, format!("Ship b: {LEAD}."));
}

#[test]
fn a_bandit_is_shipped_over_no_guardrail_and_no_refusal() {
    let body = won_by_b();
    let case = || Case::new(Status::Running, &body);
    let with = |verdict| Case {
        guardrails: vec![guarded(verdict)],
        ..case()
    };
    assert!(with(Verdict::NonInferior).said().starts_with("Ship b"));
    assert_eq!(
        with(Verdict::Inconclusive).said(),
        format!("Wait with b: {LEAD}, but error_rate was not yet shown to hold within its margin.")
    );
    assert_eq!(
        with(Verdict::Inferior).said(),
        format!("Do not ship b: {LEAD}, and worse in error_rate by more than its margin.")
    );
    for (verdict, begin) in [
        (Answer::Blocked, "Do not ship b"),
        (Answer::NotYet, "Wait with b"),
    ] {
        let said = Case {
            decision: answer(verdict, B, "so it is"),
            ..case()
        };
        assert_eq!(said.said(), format!("{begin}: {LEAD}, but so it is."));
    }
    let off = Case {
        mismatch: true,
        ..case()
    };
    assert!(off.said().starts_with("Do not act: the split is off"));
}

#[test]
fn a_bandit_that_is_over_has_won_or_has_no_winner() {
    let body = won_by_b();
    let end = |recorded, promoted| {
        let case = Case::new(Status::Completed, &body);
        let said = Case {
            recorded,
            promoted,
            ..case
        };
        said.said()
    };
    for (recorded, promoted, rest) in [
        (
            None,
            false,
            "The experiment is completed, so nothing promotes it any more: release it by hand, or declare it the winner.",
        ),
        (
            Some(B),
            true,
            "It was promoted, and the promotion is in force.",
        ),
        (
            Some(B),
            false,
            "It is recorded as the winner: release it by hand, unless shoppers are given it already.",
        ),
        (
            Some(11),
            false,
            "Another variant is recorded as the winner: find out why before you release either.",
        ),
    ] {
        assert_eq!(
            end(recorded, promoted),
            format!("b has won: {LEAD}. {rest}")
        );
    }
    let unshown = Case {
        guardrails: vec![guarded(Verdict::Inconclusive)],
        ..Case::new(Status::Archived, &body)
    };
    let said = unshown.said();
    assert!(
        said.contains(
            ". error_rate was not shown to hold within its margin. The experiment is archived"
        ),
        "{said}"
    );

    let open = bandit(&[("b", 0.912, (-0.001, 0.034))], None);
    let over = |recorded| Case {
        recorded,
        ..Case::new(Status::Completed, &open)
    };
    let none = "No winner: b is likeliest to be the best (91.2 %), but has not won (expected loss: 0.002000, required: 0.001).";
    assert_eq!(over(None).said(), format!("{none} Keep the control."));
    assert_eq!(
        over(Some(B)).said(),
        format!("{none} b is recorded as the winner all the same.")
    );
}

#[test]
fn a_bandit_that_has_no_winner_yet_goes_on() {
    let open = bandit(&[("b", 0.912, (-0.001, 0.034))], None);
    let said = Case::new(Status::Running, &open).said();
    assert_eq!(
        said,
        "Keep running: b is likeliest to be the best (91.2 %), but has not won yet (expected loss: 0.002000, required: 0.001). \
         Meanwhile the variants that seem better get more traffic."
    );
    let said = Case::new(Status::Paused, &open).said();
    assert!(
        said.starts_with("Paused: b is likeliest to be the best (91.2 %), but has not won yet"),
        "{said}"
    );
    // What the control lacks to beat itself is no news.
    let control = bandit(&[("b", 0.2, (-0.02, 0.01))], None);
    let said = Case::new(Status::Running, &control).said();
    assert!(
        said.starts_with(
            "Keep running: the control is likeliest to be the best (80.0 %), and no variant has won yet."
        ),
        "{said}"
    );
    let mut unknown = bandit(&[("b", 0.2, (-0.02, 0.01))], None);
    unknown.leader = None;
    let said = Case::new(Status::Running, &unknown).said();
    assert!(
        said.starts_with("Keep running: it is not known yet who"),
        "{said}"
    );
}

#[test]
fn a_bandit_whose_treatments_are_all_worse_is_to_be_stopped() {
    let worse = (-0.03, -0.01);
    let one = bandit(&[("b", 0.01, worse)], None);
    let all = bandit(&[("b", 0.01, worse), ("c", 0.02, worse)], None);
    let some = bandit(&[("b", 0.01, worse), ("c", 0.02, (-0.03, 0.01))], None);
    for status in [Status::Running, Status::Paused] {
        let said = |body| Case::new(status, body).said();
        assert!(said(&one).starts_with("Stop: b is worse than the control in units with purchase"));
        assert!(said(&all).starts_with("Stop: every treatment is worse"));
        assert!(!said(&some).starts_with("Stop"));
    }
    let over = Case::new(Status::Completed, &all).said();
    assert!(
        over.starts_with("No winner: every treatment is worse")
            && over.ends_with("Keep the control."),
        "{over}"
    );
}

/// The engine means another treatment, because that one's looks say more.
#[test]
fn reasons_are_those_of_the_treatment_that_the_sentence_names() {
    let metrics = [metric(
        "conversion_rate",
        "primary",
        vec![winning(B, "b"), blank(&variant(13, "c"), None)],
    )];
    let nearest = answer(Answer::NotYet, 13, "improvement of c");
    let said = verdict(&Facts {
        status: Status::Running,
        metrics: &metrics,
        split: &split(false),
        bandit: None,
        decision: &nearest,
        about: &|name| answer(Answer::NotYet, B, &format!("sample of {name}")),
        recorded: None,
        promoted: false,
        now: DateTime::UNIX_EPOCH,
        pace: 1.0,
    });
    assert_eq!(
        said,
        "Wait with b: it is ahead in conversion_rate (+20.0 %), but sample of b."
    );
}
