//! The sentences of the decision rule, one by one.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::anytime::{Method, Split, anytime, anytime_of};
use super::design::{DesignInput, DesignSettings, FrozenDesign};
use super::evidence::{
    ArmSummary, Counts, MIN_CONVERSIONS, MIN_CONVERSIONS_UNEQUAL, Stratum, stratified,
};
use super::look::{Analysis, Answer, Look, Snapshot, Wait, take, unspent_at_end};
use super::sequential::{Crossing, LEAST_P, Spent, bounds, p_value};
use super::verdict::{Gates, Standing, judge, winner};
use crate::metric::Metric;
use crate::stats::StatsError;
use crate::stats::mean::{MeanSummary, welch};
use crate::stats::proportion::{Proportion, two_proportions};
use crate::stats::ratio::{RatioSummary, compare_ratios};
use crate::stats::special::{norm_isf, norm_sf};

const CONFIDENCE: f64 = 95.0;

fn start() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

fn at(hours: f64) -> DateTime<Utc> {
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
    let milliseconds = (hours * 3_600_000.0).round() as i64;
    start() + TimeDelta::milliseconds(milliseconds)
}

fn design(horizon_days: Option<f64>) -> FrozenDesign {
    FrozenDesign::new(DesignInput {
        metric: Metric::ConversionRate,
        winsorize_upper: None,
        cap: None,
        treatments: 1,
        settings: DesignSettings {
            min_detectable_effect: None,
            horizon_days,
            look_every_hours: 24,
        },
        min_sample_size: 100,
        min_runtime_hours: 24.0,
        min_improvement: 0.0,
    })
    .unwrap()
}

fn analysis(horizon_days: Option<f64>) -> Analysis {
    Analysis {
        start: start(),
        unspent: 1.0,
        design: design(horizon_days),
    }
}

fn rates(x_a: i64, n_a: i64, x_b: i64, n_b: i64) -> Stratum {
    let arm = |x, n| ArmSummary::proportion(Proportion::new(x, n).unwrap());
    Stratum {
        control: arm(x_a, n_a),
        treatment: arm(x_b, n_b),
        treatment_share: 0.5,
    }
}

/// A thousand units an arm and day at 10 % and at 10 % plus `ahead` conversions a day.
fn day(days: i64, ahead: i64) -> Vec<Stratum> {
    vec![rates(
        100 * days,
        1_000 * days,
        (100 + ahead) * days,
        1_000 * days,
    )]
}

fn snapshot(hours: f64, strata: &[Stratum]) -> Snapshot<'_> {
    Snapshot {
        now: at(hours),
        strata,
        min_confidence: CONFIDENCE,
    }
}

fn taken(analysis: &Analysis, looks: &[Look], hours: f64, strata: &[Stratum]) -> Vec<Look> {
    match take(analysis, looks, &snapshot(hours, strata)).unwrap() {
        Answer::Taken(looks) => looks,
        other => panic!("{other:?}"),
    }
}

/// Takes a look a day for `days` days.
fn daily(analysis: &Analysis, days: i64, ahead: i64) -> Vec<Look> {
    let mut looks = Vec::new();
    for day_number in 1..=days {
        let new = taken(
            analysis,
            &looks,
            24.0 * day_number as f64,
            &day(day_number, ahead),
        );
        looks.extend(new);
    }
    looks
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * other.abs().max(1.0)
}

// --- Statistic -------------------------------------------------------------------------------

#[test]
fn one_epoch_of_a_proportion_is_the_pooled_z() {
    let statistic = stratified(&[rates(120, 1_000, 190, 1_400)]).unwrap();
    let arm = |x, n| Proportion::new(x, n).unwrap();
    let test = two_proportions(arm(120, 1_000), arm(190, 1_400), 0.95).unwrap();
    assert!(close(statistic.z, test.pooled.z));
    assert!(close(
        statistic.lift.unwrap(),
        (190.0 / 1_400.0) / 0.12 - 1.0
    ));
    let (pooled, weight) = (310.0 / 2_400.0, 1_000.0 * 1_400.0 / 2_400.0);
    assert!(close(
        statistic.information,
        weight * pooled / (1.0 - pooled)
    ));
}

#[test]
fn several_epochs_carry_the_factor_and_are_weighted() {
    let strata = [rates(120, 1_000, 190, 1_400), rates(3, 10, 2, 4)];
    let statistic = stratified(&strata).unwrap();
    let terms = [(1_000.0, 120.0, 1_400.0, 190.0), (10.0, 3.0, 4.0, 2.0)];
    let (mut above, mut below) = (0.0, 0.0);
    for (n_a, x_a, n_b, x_b) in terms {
        let (n, w) = (n_a + n_b, n_a * n_b / (n_a + n_b));
        let pooled: f64 = (x_a + x_b) / n;
        above += w * (x_b / n_b - x_a / n_a);
        below += w * w * (pooled * (1.0 - pooled) / w * n / (n - 1.0));
    }
    assert!(close(statistic.z, above / below.sqrt()));
    assert_eq!(statistic.epochs, 2);
}

#[test]
fn pooling_over_a_change_of_weights_would_see_what_is_not_there() {
    // Both epochs are exactly equal in the arms; the rate and the split differ between them.
    let strata = [
        rates(900, 9_000, 100, 1_000),
        rates(200, 1_000, 1_800, 9_000),
    ];
    assert!(close(stratified(&strata).unwrap().z, 0.0));
    let pooled = stratified(&[rates(1_100, 10_000, 1_900, 10_000)]).unwrap();
    assert!(pooled.z > 10.0);
}

#[test]
fn means_and_ratios_take_the_wider_error() {
    let mean = |n, mean, variance| MeanSummary::new(n, mean, variance).unwrap();
    for (a, b) in [
        (mean(900, 10.0, 4.0), mean(100, 10.5, 1.0)),
        (mean(900, 10.0, 1.0), mean(100, 10.5, 4.0)),
    ] {
        let stratum = Stratum {
            control: ArmSummary::mean(&a, 900).unwrap(),
            treatment: ArmSummary::mean(&b, 100).unwrap(),
            treatment_share: 0.1,
        };
        let statistic = stratified(&[stratum]).unwrap();
        let common = (899.0 * a.variance() + 99.0 * b.variance()) / 998.0;
        let pooled = (common * (1.0 / 900.0 + 0.01)).sqrt();
        let wider = welch(&a, &b, 0.95).unwrap().se.max(pooled);
        assert!(close(statistic.z, 0.5 / wider));
        let value = (900.0 * 10.0 + 100.0 * 10.5) / 1_000.0;
        assert!(close(statistic.information, (value / wider).powi(2)));
    }
    let ratio = |value, se2| RatioSummary::new(500, value, se2).unwrap();
    let (a, b) = (ratio(0.1, 1e-6), ratio(0.11, 1e-6));
    let arm = |summary| ArmSummary::ratio(&summary, 4_000.0, 300).unwrap();
    let stratum = Stratum {
        control: arm(a),
        treatment: arm(b),
        treatment_share: 0.5,
    };
    let z = compare_ratios(&a, &b, 0.95).unwrap().z;
    assert!(close(stratified(&[stratum]).unwrap().z, z));
}

#[test]
fn an_epoch_of_a_mean_counts_from_25_units_in_each_arm() {
    let arm = |n| ArmSummary::mean(&MeanSummary::new(n, 3.0, 1.0).unwrap(), n).unwrap();
    let stratum = |n_a, n_b| Stratum {
        control: arm(n_a),
        treatment: arm(n_b),
        treatment_share: 0.5,
    };
    let small = stratified(&[stratum(1_000, 24)]);
    assert_eq!(small, Err(StatsError::NotEnoughData));
    let both = stratified(&[stratum(1_000, 24), stratum(25, 25)]).unwrap();
    assert_eq!(both.epochs, 1);
}

#[test]
fn what_is_not_defined_is_an_error() {
    assert_eq!(stratified(&[]), Err(StatsError::NotEnoughData));
    let empty = stratified(&[rates(0, 0, 5, 10)]);
    assert_eq!(empty, Err(StatsError::NotEnoughData));
    let constant = stratified(&[rates(0, 10, 0, 10)]);
    assert_eq!(constant, Err(StatsError::ZeroVariance));
    let mixed = Stratum {
        control: ArmSummary::mean(&MeanSummary::new(30, 1.0, 1.0).unwrap(), 30).unwrap(),
        ..rates(1, 30, 1, 30)
    };
    assert_eq!(stratified(&[mixed]), Err(StatsError::InvalidInput));
}

// --- Looks -----------------------------------------------------------------------------------

#[test]
fn slots_begin_after_the_runtime() {
    let design = design(None);
    for (hours, slot) in [
        (0.0, None),
        (23.99, None),
        (24.0, Some(0)),
        (47.99, Some(0)),
        (48.0, Some(1)),
        (24.0 * 31.0, Some(30)),
    ] {
        assert_eq!(design.slot(start(), at(hours)), slot, "{hours}");
    }
    assert_eq!(design.slot_start(start(), 30), Some(at(24.0 * 31.0)));
}

#[test]
fn a_slot_is_no_look_before_its_preconditions_hold() {
    let analysis = analysis(None);
    let waits = |looks: &[Look], hours, strata: &[Stratum]| match take(
        &analysis,
        looks,
        &snapshot(hours, strata),
    )
    .unwrap()
    {
        Answer::Waiting(waits) => waits,
        other => panic!("{other:?}"),
    };
    let early = waits(&[], 12.0, &day(1, 0));
    assert!(matches!(early[..], [Wait::Runtime { .. }]));
    let unequal = Stratum {
        treatment_share: 0.9,
        ..rates(24, 99, 30, 400)
    };
    let few = waits(&[], 24.0, &[unequal]);
    assert!(matches!(
        few[..],
        [
            Wait::Units {
                measured: 99,
                required: 100
            },
            Wait::Conversions {
                measured: 24,
                required: 100
            }
        ]
    ));
    assert_eq!(Counts::of(&[unequal]).required_conversions(), 100);
    let alone = Counts::of(&[rates(50, 500, 0, 0), rates(1, 5, 2, 6)]);
    assert_eq!((alone.control_units, alone.least_units()), (5, 5));
    let looks = daily(&analysis, 3, 0);
    let stale = waits(&looks, 24.0 * 4.0, &[rates(301, 3_020, 301, 3_020)]);
    assert!(matches!(stale[..], [Wait::Information { .. }]));
    let none = waits(&[], 24.0, &[]);
    assert!(none.contains(&Wait::Undefined(StatsError::NotEnoughData)));
}

#[test]
fn the_first_request_in_a_slot_takes_its_look_and_later_ones_reuse_it() {
    let analysis = analysis(None);
    let looks = daily(&analysis, 2, 5);
    let better = day(3, 90);
    let again = take(&analysis, &looks, &snapshot(71.9, &better)).unwrap();
    assert_eq!(again, Answer::Reused(looks[1]));
    // A dry run is the same call; nobody kept its looks, so the real one answers the same.
    let dry = take(&analysis, &looks, &snapshot(72.0, &better)).unwrap();
    let real = take(&analysis, &looks, &snapshot(72.0, &better)).unwrap();
    assert_eq!(dry, real);
}

#[test]
fn missed_slots_spend_their_share_and_have_no_z() {
    let analysis = analysis(None);
    let first = daily(&analysis, 2, 0);
    let late = taken(&analysis, &first, 24.0 * 6.0, &day(6, 0));
    assert_eq!(late.len(), 4);
    let slots: Vec<_> = late.iter().map(|look| look.slot).collect();
    assert_eq!(slots, [2, 3, 4, 5]);
    assert!(
        late[..3]
            .iter()
            .all(|look| look.z.is_none() && look.p.to_bits() == first[1].p.to_bits())
    );
    // Information grew evenly, so interpolation meets what daily looks would have seen.
    let regular = daily(&analysis, 6, 0);
    for (one, other) in late.iter().zip(&regular[2..]) {
        assert!(close(one.information, other.information));
        assert!(close(one.bound.unwrap(), other.bound.unwrap()));
    }
    // They cost: with nothing missed the same look would have needed less.
    let spent = |new: &[Look]| super::look::spent(&analysis, &first, new).unwrap();
    let level = late[3].level;
    let cheap = bounds(&spent(&late[3..]), level).unwrap().pop().unwrap();
    let dear = bounds(&spent(&late), level).unwrap().pop().unwrap();
    assert_eq!(dear, late[3].bound);
    assert!(dear.unwrap() > cheap.unwrap() + 0.05);
}

#[test]
fn before_the_first_look_slots_count_once_the_interpolated_counts_suffice() {
    let analysis = analysis(None);
    // Day 10: 10,000 units and 1,000 conversions an arm; 100 units are there from the first hour
    // of a tenth of a day, 25 conversions from the first quarter of a day.
    let looks = taken(&analysis, &[], 240.0, &day(10, 0));
    assert_eq!(looks.len(), 10);
    // With 60 conversions an arm 25 of them are there on day 5 of 10, hence from slot 4 on.
    let sparse = [rates(60, 10_000, 50, 10_000)];
    let looks = taken(&analysis, &[], 240.0, &sparse);
    assert_eq!(looks[0].slot, 4);
    assert!(close(looks[0].information / looks[5].information, 0.5));
}

#[test]
fn a_missed_slot_without_growth_is_no_look() {
    let analysis = analysis(None);
    let first = daily(&analysis, 3, 0);
    let information = |factor: i64| [rates(3 * factor, 30 * factor, 3 * factor, 30 * factor)];
    // Information grows by 2 % in five days: at most one slot in between is 1 % from both ends.
    let looks = taken(&analysis, &first, 24.0 * 8.0, &information(102));
    assert!(looks.len() <= 2, "{looks:?}");
    assert!(looks.last().unwrap().z.is_some());
}

#[test]
fn spending_follows_the_design() {
    let planned = ((1.644_853_626_951_472_6 + 0.841_621_233_572_914_2_f64) / 0.1).powi(2);
    let open = analysis(None);
    assert!(close(open.design.planned_information, planned));
    assert!(close(
        open.design.spending_time(start(), at(1.0), planned),
        1.0
    ));
    let horizon = analysis(Some(20.0));
    assert!(close(
        horizon.design.spending_time(start(), at(240.0), 1.0),
        0.5
    ));
    let with = |min_detectable_effect, min_improvement| {
        let design = design(None);
        let input = DesignInput {
            metric: design.metric,
            winsorize_upper: None,
            cap: None,
            treatments: 1,
            settings: DesignSettings {
                min_detectable_effect,
                ..design.settings
            },
            min_sample_size: 1,
            min_runtime_hours: 0.0,
            min_improvement,
        };
        planned / FrozenDesign::new(input).unwrap().planned_information
    };
    // Relative to an effect of 10 %: the squared effect in units of that.
    for (effect, improvement, want) in [
        (None, 0.0, 0.1),
        (None, 5.0, 0.1),
        (None, 0.5, 0.02),
        (None, 40.0, 0.5),
        (Some(0.07), 5.0, 0.07),
    ] {
        assert!(close(with(effect, improvement), (want / 0.1_f64).powi(2)));
    }
}

#[test]
fn after_the_horizon_nothing_can_cross() {
    let analysis = analysis(Some(3.0));
    let looks = daily(&analysis, 5, 0);
    assert!(looks[2].bound.is_some() && looks[3].bound.is_none());
    let huge = taken(&analysis, &looks, 24.0 * 6.0, &day(6, 100));
    assert_eq!(huge[0].p.to_bits(), looks[4].p.to_bits());
}

#[test]
fn looks_and_analyses_survive_being_stored() {
    let analysis = analysis(None);
    let text = serde_json::to_string(&analysis).unwrap();
    assert_eq!(serde_json::from_str::<Analysis>(&text).unwrap(), analysis);
    for look in daily(&analysis, 3, 4) {
        let text = serde_json::to_string(&look).unwrap();
        let back: Look = serde_json::from_str(&text).unwrap();
        assert!(close(back.p, look.p) && back.slot == look.slot && back.time == look.time);
        assert!(text.contains("spendingTime"));
    }
}

// --- New analyses ----------------------------------------------------------------------------

#[test]
fn a_new_analysis_has_what_the_earlier_one_left() {
    let first = analysis(None);
    let looks = daily(&first, 4, 0);
    let strata = day(4, 0);
    let left = unspent_at_end(&first, &[(&looks, snapshot(97.0, &strata))]).unwrap();
    let u = looks[3].information / first.design.planned_information;
    assert!(close(left, 1.0 / (1.0 + u)));
    // Slots that nobody asked for count: a peeker who restarts pays for them.
    let unseen = unspent_at_end(&first, &[(&[], snapshot(97.0, &strata))]).unwrap();
    assert!(close(unseen, left));
    let second = Analysis {
        unspent: left,
        ..first.clone()
    };
    assert!(close(second.level(95.0), 0.05 * left));
    assert!(close(second.confidence(0.01), 100.0 * (1.0 - 0.01 / left)));
    let nothing = Analysis {
        unspent: 0.0,
        ..first
    };
    let looks = daily(&nothing, 3, 100);
    let gates = Gates {
        min_confidence: 50.0,
        min_improvement: 0.0,
    };
    assert!(!judge(&nothing, &looks, gates).is_eligible());
    assert!(nothing.confidence(0.0).abs() < 1e-300);
}

#[test]
fn a_changed_design_is_noticed_and_a_new_cap_is_not() {
    let frozen = design(None);
    let mut now = frozen.clone();
    now.cap = Some(17.0);
    now.planned_information *= 2.0;
    assert!(!frozen.is_changed_by(&now));
    now.settings.look_every_hours = 6;
    assert!(frozen.is_changed_by(&now));
    now = frozen.clone();
    now.treatments = 2;
    assert!(frozen.is_changed_by(&now));
}

// --- Confidence ------------------------------------------------------------------------------

fn even(looks: u32) -> Vec<Spent> {
    let each = (1..=looks).map(|look| Spent {
        information: f64::from(look),
        fraction: f64::from(look) / (f64::from(look) + 10.0),
    });
    each.collect()
}

#[test]
fn p_is_the_level_whose_boundary_is_met() {
    let looks = even(8);
    for z in [1.8, 2.4, 3.5, 5.0] {
        let p = p_value(&looks, z, 1.0, None).unwrap();
        let bound = bounds(&looks, p).unwrap()[7].unwrap();
        // The search ends at a width of 1e-4 in ln p, on the side that crossed.
        assert!(bound <= z && z - bound < 1e-4, "{z}: {bound}");
    }
    assert!(close(
        p_value(&looks[..1], 2.0, 1.0, None).unwrap(),
        norm_sf(2.0) * 11.0
    ));
    let far = p_value(&looks, 9.0, 1.0, None).unwrap();
    assert_eq!(far.to_bits(), LEAST_P.to_bits());
}

#[test]
fn eligible_means_crossed_still_ahead_and_large_enough() {
    let analysis = analysis(None);
    let gates = |min_improvement| Gates {
        min_confidence: 95.0,
        min_improvement,
    };
    let none = judge(&analysis, &[], gates(0.0));
    assert!(!none.is_eligible() && none.confidence.measured.is_none());
    let looks = daily(&analysis, 4, 20);
    let good = judge(&analysis, &looks, gates(19.0));
    assert!(good.is_eligible() && good.confidence.measured.unwrap() > 95.0);
    let small = judge(&analysis, &looks, gates(21.0));
    assert!(small.confidence.met && !small.improvement.met && !small.is_eligible());
    // Crossed on day 4, but the lead is gone on day 20.
    let mut faded = looks.clone();
    faded.extend(taken(&analysis, &looks, 480.0, &day(20, 1)));
    let standing = judge(&analysis, &faded, gates(0.0));
    assert!(standing.confidence.met && !standing.lead.met && !standing.is_eligible());
    assert!(close(standing.lead.required, norm_isf(0.05)));
}

#[test]
fn of_several_winners_the_most_certain_counts_then_the_larger_lift() {
    let analysis = analysis(None);
    let gates = Gates {
        min_confidence: 95.0,
        min_improvement: 0.0,
    };
    let standing = |ahead| judge(&analysis, &daily(&analysis, 4, ahead), gates);
    assert_eq!(winner(&[standing(0), standing(16), standing(19)]), Some(2));
    assert_eq!(winner(&[standing(0)]), None);
    // Both below what is reported: then the lift decides.
    let certain: [Standing; 3] = [standing(60), standing(80), standing(70)];
    assert!(certain.iter().all(|standing| standing.p <= LEAST_P));
    assert_eq!(winner(&certain), Some(1));
}

#[test]
fn treatments_divide_alpha() {
    let mut three = analysis(None);
    three.design.treatments = 3;
    assert!(close(three.level(95.0), 0.05 / 3.0));
    assert!(close(three.confidence(0.01), 97.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p_never_rises_and_is_small_exactly_when_the_boundary_was_crossed(
        steps in prop::collection::vec((0.02_f64..2.0, -1.0_f64..1.5), 1..9),
        level in 0.004_f64..0.3,
        horizon in any::<bool>(),
    ) {
        let (mut information, mut score, mut p) = (0.0, 0.0, 1.0_f64);
        let (mut looks, mut crossed) = (Vec::new(), false);
        let mut crossing = Crossing::new(level);
        for (step, push) in steps {
            information += step;
            score += push * step.sqrt() + 0.5 * step;
            let fraction = if horizon {
                f64::min(1.0, information / 6.0)
            } else {
                information / (information + 3.0)
            };
            looks.push(Spent { information, fraction });
            let z = score / f64::sqrt(information);
            let bound = bounds(&looks, level).unwrap().pop().unwrap();
            crossed |= bound.is_some_and(|bound| z >= bound);
            let known = bound.map(|bound| (level, bound));
            let next = p_value(&looks, z, p, known).unwrap();
            prop_assert!(next <= p && next >= LEAST_P);
            prop_assert_eq!(crossing.reaches(&looks, z).unwrap(), bound.is_some_and(|bound| z >= bound));
            // Without knowing the level the search ends at most its own width away.
            let alone = p_value(&looks, z, p, None).unwrap();
            prop_assert!((alone / next).ln().abs() < 2.1e-4, "{} {}", alone, next);
            p = next;
            prop_assert_eq!(p <= level, crossed, "p {} level {}", p, level);
        }
    }

    #[test]
    fn more_conversions_in_the_treatment_never_hurt(x in 30_i64..200, more in 1_i64..20) {
        let z = |x_b: i64| stratified(&[rates(100, 1_000, x_b, 1_000)]).unwrap().z;
        prop_assert!(z(x + more) > z(x));
    }
}

// --- For reading -----------------------------------------------------------------------------

#[test]
fn few_conversions_are_read_by_the_exact_process() {
    let few = anytime(&[rates(4, 100, 15, 100)], 0.05).unwrap();
    assert_eq!(few.method, Method::Bernoulli);
    assert!(few.lift.lower < 2.0 && few.lift.upper > 2.75 && few.ln_e_higher > few.ln_e_two_sided);
    let nothing = anytime(&[rates(0, 100, 0, 100)], 0.05).unwrap();
    assert!(nothing.lift.upper.is_infinite() && close(nothing.lift.lower, -1.0));
    let many = anytime(&day(3, 5), 0.05).unwrap();
    assert_eq!(many.method, Method::NormalMixture);
    assert!(many.lift.lower < 0.05 && many.lift.upper > 0.05);
    assert!(many.lift_at_least > many.lift.lower);
}

#[test]
fn the_edge_of_an_exact_interval_is_where_the_evidence_reaches_the_level() {
    // With odds multiplied by the limit the planned share is tilted, and the e-value is 1/alpha.
    let found = anytime(&[rates(12, 1_000, 20, 1_000)], 0.05).unwrap();
    let ratio = 1.0 + found.lift.upper;
    let against = found.ln_e_two_sided + 32.0 * (0.5 + 0.5 * ratio).ln() - 20.0 * ratio.ln();
    assert!((against - 20.0_f64.ln()).abs() < 1e-9);
}

/// From z = 38.6 on the tail is 0, whose logarithm no search can start from.
#[test]
fn an_overwhelming_effect_is_as_certain_as_can_be_told() {
    let strata = [rates(100_000, 1_000_000, 200_000, 1_000_000)];
    assert!(stratified(&strata).unwrap().z > 100.0);
    let looks = taken(&analysis(None), &[], 24.0 * 10.5, &strata);
    assert!(looks.len() > 1);
    assert!(close(looks.last().unwrap().p, LEAST_P));
}

/// The band holds exactly the lifts whose e-value is below 1/alpha, so it loses 0 when the evidence against 0 arrives.
#[test]
fn a_band_excludes_no_difference_exactly_when_the_evidence_does() {
    for ahead in 0..40 {
        let found = anytime(&day(3, ahead), 0.05).unwrap();
        assert_eq!(
            found.lift.lower > 0.0,
            found.ln_e_two_sided > 20.0_f64.ln(),
            "{ahead}: {found:?}"
        );
        assert_eq!(
            found.lift_at_least > 0.0,
            found.ln_e_higher > 20.0_f64.ln(),
            "{ahead}"
        );
    }
}

/// Dividing an interval of the difference by the observed control would give +93.2 % to +106.8 % here.
#[test]
fn a_large_lift_keeps_the_error_of_its_control() {
    let found = anytime(&day(30, 100), 0.05).unwrap();
    assert_eq!(found.method, Method::NormalMixture);
    assert!(
        found.lift.lower < 0.925 && found.lift.upper > 1.08,
        "{found:?}"
    );
    assert!(
        found.lift.lower > 0.85 && found.lift.upper < 1.2,
        "{found:?}"
    );
    // The e-value against no difference is the mixture's of the stratified statistic.
    let statistic = stratified(&day(30, 100)).unwrap();
    let mixture = crate::stats::mixture::effect_scale(
        statistic.effect,
        statistic.se,
        0.1 * statistic.baseline,
        0.05,
    );
    assert!(close(found.ln_e_two_sided, mixture.unwrap().ln_e2));
}

/// Clients named 2,000 and 450 units of a split that is planned as even; both convert at 10 %.
#[test]
fn a_split_that_is_not_ours_has_no_band_beside_its_own_estimate() {
    let foreign = [rates(200, 2_000, 45, 450)];
    for split in [Split::Ours, Split::Foreign] {
        let found = anytime_of(&foreign, split, 0.05);
        assert!(
            found.is_err() || found.is_ok_and(|f| f.lift.lower < 0.0 && f.lift.upper > 0.0),
            "{found:?}"
        );
    }
    let few = anytime_of(&[rates(20, 200, 9, 90)], Split::Foreign, 0.05);
    assert_eq!(few, Err(StatsError::NotEnoughData));
    let many = anytime_of(&[rates(2_000, 20_000, 450, 4_500)], Split::Foreign, 0.05);
    assert_eq!(many.unwrap().method, Method::NormalMixture);
}

#[test]
fn epochs_that_contradict_each_other_leave_no_band_without_width() {
    let up = Stratum {
        treatment_share: 0.5,
        ..rates(10, 10_000, 190, 10_000)
    };
    let down = rates(190, 10_000, 10, 10_000);
    let found = anytime(&[up, down, rates(3, 100, 4, 100)], 0.05);
    assert!(
        found.is_err() || found.is_ok_and(|f| f.lift.upper - f.lift.lower > 0.01),
        "{found:?}"
    );
}

/// A split of 80/20 that came out as 81/19 or 79/21 waits for the same number of conversions.
#[test]
fn the_planned_shares_say_what_is_unequal() {
    let split = |treated: i64, share: f64| {
        let stratum = Stratum {
            treatment_share: share,
            ..rates(100, 10_000 - treated, 30, treated)
        };
        Counts::of(&[stratum]).required_conversions()
    };
    for treated in [1_900, 2_000, 2_100] {
        assert_eq!(split(treated, 0.2), MIN_CONVERSIONS);
        assert_eq!(split(treated, 0.19), MIN_CONVERSIONS_UNEQUAL);
        // 1 − 0.8 is a little less than 0.2.
        assert_eq!(split(10_000 - treated, 0.8), MIN_CONVERSIONS);
    }
}
