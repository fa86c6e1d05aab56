//! Truths about small bandits, by hand and by simulation.

use super::*;

fn epoch(is_even: bool, weights: &[f64], counts: &[(u64, u64)]) -> EpochUnits {
    EpochUnits {
        is_even,
        weights: weights.to_vec(),
        counts: counts
            .iter()
            .map(|(n, s)| Counts::new(*n, *s).unwrap())
            .collect(),
    }
}

#[test]
fn a_sale_while_the_weights_move_makes_no_winner() {
    // Both arms have 5 % before the sale and 20 % during it; the treatment gets most of the sale's traffic.
    let epochs = [
        epoch(false, &[50.0, 50.0], &[(2_000, 100), (2_000, 100)]),
        epoch(false, &[10.0, 90.0], &[(400, 80), (3_600, 720)]),
    ];
    let truths = read(&epochs, 0).unwrap();
    let raw = |arm: usize| truths[arm].raw.unwrap().value;
    assert!(raw(1) > 1.4 * raw(0), "pooled averages tell another story");
    let difference = truths[1].difference.unwrap();
    assert!(difference.estimate.value.abs() < 1e-3, "{difference:?}");
    let leader = leader(&truths, 0, 0.95).unwrap();
    assert!(!leader.wins());
}

#[test]
fn a_clear_winner_wins_and_equal_arms_do_not() {
    let better = [
        epoch(false, &[50.0, 50.0], &[(5_000, 250), (5_000, 400)]),
        epoch(false, &[10.0, 90.0], &[(1_000, 50), (9_000, 720)]),
        epoch(true, &[1.0, 1.0], &[(600, 30), (600, 48)]),
    ];
    let truths = read(&better, 0).unwrap();
    let winner = leader(&truths, 0, 0.95).unwrap();
    assert!(winner.arm == 1 && winner.wins(), "{winner:?} {truths:?}");
    let best = |arm: usize| truths[arm].standing.unwrap().prob_best;
    assert!((best(0) + best(1) - 1.0).abs() < 1e-9);
    let equal = [epoch(true, &[1.0, 1.0], &[(5_000, 250), (5_000, 255)])];
    let truths = read(&equal, 0).unwrap();
    assert!(!leader(&truths, 0, 0.95).unwrap().wins());
}

#[test]
fn a_starved_arm_has_fewer_outcomes_than_it_seems() {
    let starved = |units: u64, outcomes: u64| {
        let even = epoch(false, &[50.0, 50.0], &[(200, 10), (200, 10)]);
        let adaptive = epoch(false, &[2.0, 98.0], &[(units, outcomes), (49 * units, 980)]);
        let truths = read(&[even, adaptive], 0).unwrap();
        truths[1].difference.unwrap().anytime
    };
    // 26 of the control, 16 of which weigh 50: in effect 17.
    assert_eq!(starved(200, 16), None);
    assert!(starved(400, 32).is_some());
}

/// The control and `b` had a sale before `c` came; since then all do worse, and `c` does best.
fn with_a_newcomer() -> Vec<EpochUnits> {
    vec![
        epoch(
            true,
            &[1.0, 1.0, 0.0],
            &[(4_000, 800), (4_000, 840), (0, 0)],
        ),
        epoch(
            false,
            &[40.0, 60.0, 0.0],
            &[(8_000, 1_600), (12_000, 2_520), (0, 0)],
        ),
        epoch(
            true,
            &[1.0, 1.0, 1.0],
            &[(3_000, 150), (3_000, 160), (3_000, 270)],
        ),
        epoch(
            false,
            &[20.0, 30.0, 50.0],
            &[(2_000, 100), (3_000, 160), (5_000, 450)],
        ),
    ]
}

#[test]
fn a_newcomer_is_compared_over_the_time_in_which_all_were_there() {
    let epochs = with_a_newcomer();
    let truths = read(&epochs, 0).unwrap();
    assert!(truths[1].raw.unwrap().value > truths[2].raw.unwrap().value);
    let best = |arm: usize| truths[arm].standing.unwrap();
    assert!(best(2).prob_best > 0.999 && best(2).expected_loss < 1e-4);
    assert!(best(1).prob_best < 1e-3, "{:?}", best(1));
    let leader = leader(&truths, 0, 0.95).unwrap();
    assert!(leader.arm == 2 && leader.wins(), "{leader:?}");
    // What happened before the newcomer came has no say in who is best.
    let later = read(&epochs[2..], 0).unwrap();
    assert_eq!(later[2].standing, truths[2].standing);
}

#[test]
fn a_retired_arm_is_out_of_the_running() {
    let mut epochs = with_a_newcomer();
    epochs.push(epoch(
        false,
        &[50.0, 0.0, 50.0],
        &[(2_000, 100), (0, 0), (2_000, 180)],
    ));
    let truths = read(&epochs, 0).unwrap();
    assert_eq!(truths[1].standing, None);
    let best = |arm: usize| truths[arm].standing.unwrap().prob_best;
    assert!((best(0) + best(2) - 1.0).abs() < 1e-9);
    assert_eq!(leader(&truths, 0, 0.95).unwrap().arm, 2);
}

#[test]
fn an_arm_without_units_hides_nothing_of_the_others() {
    // Never shown: its weight was 0 from the start.
    let never = [epoch(
        false,
        &[50.0, 50.0, 0.0],
        &[(2_000, 100), (2_000, 180), (0, 0)],
    )];
    let truths = read(&never, 0).unwrap();
    assert!(truths[2].rate.is_none() && truths[2].difference.is_none());
    assert!(truths[1].rate.is_some() && truths[1].difference.is_some());
    assert_eq!(leader(&truths, 0, 0.95).unwrap().arm, 1);
    // Just added: who is best is not known before it has units, and nobody wins.
    let added = [
        never[0].clone(),
        epoch(false, &[40.0, 30.0, 30.0], &[(0, 0), (0, 0), (0, 0)]),
    ];
    let truths = read(&added, 0).unwrap();
    assert!(truths[1].rate.is_some());
    assert!(truths.iter().all(|truth| truth.standing.is_none()));
    assert_eq!(leader(&truths, 0, 0.95), Err(BanditError::NoArms));
}

/// The scores of an arm that nobody has seen yet are what was assumed of it, for certain.
#[test]
fn an_arm_with_weight_and_no_units_is_not_known() {
    let first = [epoch(
        false,
        &[48.0, 48.0, 4.0],
        &[(400, 20), (400, 40), (0, 0)],
    )];
    let truths = read(&first, 0).unwrap();
    assert_eq!((truths[2].rate, truths[2].difference), (None, None));
    assert_eq!(truths[2].rate_sqrt, None);
    assert!(truths[1].rate.is_some() && truths[1].difference.is_some());
    assert!(truths.iter().all(|truth| truth.standing.is_none()));
    assert_eq!(leader(&truths, 0, 0.95), Err(BanditError::NoArms));
    // Nothing is compared with a control that nobody has seen.
    let truths = read(&first, 2).unwrap();
    assert_eq!((truths[0].difference, truths[1].difference), (None, None));
    assert_eq!(leader(&truths, 2, 0.95), Err(BanditError::NoArms));
}

#[test]
fn the_scale_stands_before_there_are_data() {
    // The same difference of the same scores, told by two courses of the units before: a scale that was tuned to the variance
    // at the first look would make two intervals of them.
    let first = |early: &[(u64, u64)]| {
        let epochs = [
            epoch(false, &[50.0, 50.0], early),
            epoch(false, &[50.0, 50.0], &[(5_000, 500), (5_000, 600)]),
        ];
        scale(epochs.iter()).unwrap()
    };
    assert_eq!(
        first(&[(500, 25), (500, 25)]),
        first(&[(500, 250), (500, 250)])
    );
    let three = [epoch(true, &[1.0, 1.0, 1.0], &[(1, 0), (1, 0), (1, 0)])];
    assert_ne!(scale(three.iter()).unwrap(), first(&[(1, 0), (1, 0)]));
}

#[test]
fn epochs_of_which_an_arm_was_no_part_say_nothing_about_it() {
    let epochs = [
        epoch(
            false,
            &[50.0, 50.0, 0.0],
            &[(1_000, 50), (1_000, 50), (0, 0)],
        ),
        epoch(
            false,
            &[40.0, 30.0, 30.0],
            &[(400, 80), (300, 60), (300, 60)],
        ),
    ];
    let truths = read(&epochs, 0).unwrap();
    assert!(truths[2].difference.unwrap().estimate.value.abs() < 1e-9);
    assert!(read(&epochs, 3).is_err());
    assert!(read(&[], 0).is_err());
    let nobody = [epoch(true, &[1.0, 1.0], &[(0, 0), (0, 0)])];
    let truths = read(&nobody, 0).unwrap();
    assert!(truths.iter().all(|truth| truth.rate.is_none()));
}

/// Clicks of half a percent: 475 and 425 units of an even adaptive epoch are unequal by chance, which moves no rate.
#[test]
fn the_even_share_is_the_model_of_the_first_adaptive_epoch() {
    let with = |counts: &[(u64, u64)]| {
        let even = epoch(true, &[1.0, 1.0], &[(2_000, 8), (2_000, 12)]);
        read(&[even, epoch(false, &[50.0, 50.0], counts)], 0).unwrap()
    };
    let truths = with(&[(4_750, 24), (4_250, 21)]);
    for truth in &truths {
        let rate = truth.rate.unwrap();
        assert!((rate.value - 0.005).abs() < 0.0005, "{rate:?}");
        assert!(rate.se < 0.001, "{rate:?}");
        assert!(truth.standing.unwrap().prob_best < 0.9);
    }
}

#[test]
fn early_figures_are_not_told() {
    let early = [
        epoch(true, &[1.0, 1.0], &[(100, 0), (100, 1)]),
        epoch(false, &[50.0, 50.0], &[(475, 2), (425, 2)]),
    ];
    let everybody = [epoch(true, &[1.0, 1.0], &[(100, 100), (100, 99)])];
    for epochs in [&early[..], &everybody] {
        let truths = read(epochs, 0).unwrap();
        for truth in &truths {
            assert!(truth.rate.is_none() && truth.standing.is_none() && truth.difference.is_none());
            assert!(truth.raw.is_some());
        }
        assert_eq!(leader(&truths, 0, 0.95), Err(BanditError::NoArms));
    }
}

/// An estimate that happens to fall below 0 says about the same as one just above.
#[test]
fn nothing_jumps_where_an_estimate_is_zero() {
    let at = |units: u64| {
        let epochs = [
            epoch(true, &[1.0, 1.0], &[(1_000, 5), (1_000, 5)]),
            epoch(false, &[5.0, 95.0], &[(units, 0), (10_000 - units, 47)]),
        ];
        let truths = read(&epochs, 0).unwrap();
        (truths[0].rate.unwrap().value, truths[0].standing.unwrap())
    };
    let all: Vec<_> = (560..640).map(at).collect();
    let signs: Vec<_> = all.iter().map(|(rate, _)| *rate > 0.0).collect();
    assert!(signs.contains(&true) && signs.contains(&false), "{all:?}");
    for pair in all.windows(2) {
        let [(_, a), (_, b)] = pair else { continue };
        assert!((a.prob_best - b.prob_best).abs() < 0.01, "{pair:?}");
        assert!((a.expected_loss - b.expected_loss).abs() < 1e-4, "{pair:?}");
    }
}

/// None of 1,000 units: a rate of 0.5 % does that once in 150 times, one of 0.1 % once in three.
#[test]
fn an_arm_without_outcomes_keeps_a_tail() {
    let epochs = [epoch(true, &[1.0, 10.0], &[(1_000, 0), (10_000, 50)])];
    let truths = read(&epochs, 0).unwrap();
    let none = truths[0].standing.unwrap();
    assert!((0.001..0.02).contains(&none.prob_best), "{none:?}");
    let (_, (lower, upper)) = shown(&truths[0].rate.unwrap());
    assert!(lower.abs() < 1e-12 && (0.001..0.01).contains(&upper));
}
