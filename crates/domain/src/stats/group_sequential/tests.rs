use super::*;

/// Bounds of looks at `info` that spend `alpha` evenly.
fn even(info: &[f64], alpha: f64) -> Vec<f64> {
    let mut growing = Boundary::new();
    let looks = info.len() as f64;
    let each = info.iter().enumerate().map(|(index, info)| {
        let spent = alpha * (index + 1) as f64 / looks;
        growing.look(*info, spent).unwrap().unwrap()
    });
    each.collect()
}

#[test]
fn a_far_look_is_nearly_independent() {
    // Information grows a millionfold: the second look forgets the first.
    let bounds = even(&[1.0, 1e12], 0.05);
    let want = norm_isf(0.025 / 0.975);
    assert!((bounds[1] - want).abs() < 1e-6, "{} {want}", bounds[1]);
}

#[test]
fn refining_the_looks_without_alpha_changes_nothing() {
    // Looks that add nothing must not move the bounds of those that do.
    let mut with = Boundary::new();
    let mut without = Boundary::new();
    for look in 1..=20_u32 {
        let (info, spent) = (f64::from(look), 0.001 * f64::from(look));
        assert_eq!(with.look(info - 0.5, with.spent()), Ok(None));
        assert_eq!(with.look(info, spent), without.look(info, spent));
    }
}

#[test]
fn what_cannot_be_a_look_is_refused_and_changes_nothing() {
    let mut boundary = Boundary::new();
    let first = boundary.look(1.0, 0.01).unwrap();
    for (info, spent) in [
        (1.0, 0.02),
        (f64::NAN, 0.02),
        (f64::INFINITY, 0.02),
        (2.0, 0.009),
        (2.0, 1.0),
        (2.0, f64::NAN),
    ] {
        assert_eq!(boundary.look(info, spent), Err(StatsError::InvalidInput));
    }
    assert!(first.is_some() && boundary.look(2.0, 0.02).unwrap().is_some());
}

#[test]
fn extreme_steps_and_levels_give_finite_bounds() {
    let tiny = [1.0, 1.0 + 1e-12, 1.0 + 2e-12, 1.5, 1e300, 1.7e308];
    for alpha in [1e-9, 0.05, 0.999] {
        for bound in even(&tiny, alpha) {
            assert!(bound.is_finite(), "{alpha}: {bound}");
        }
    }
    let mut nothing = Boundary::new();
    assert_eq!(nothing.look(1.0, 1e-300), Ok(None));
    // A cliff: nearly everything above −1 has crossed, then there is a step with nothing to spend.
    let mut boundary = Boundary::new();
    let mut last = f64::NAN;
    for (info, spent) in [(1.0, 0.8), (1.0001, 0.8 + 1e-14), (2.0, 0.9)] {
        last = boundary.look(info, spent).unwrap().unwrap();
        assert!(last.is_finite());
    }
    assert!(last < 0.0, "{last}");
}

#[test]
fn constants_refuse_what_they_cannot_compute() {
    for (looks, alpha) in [(0, 0.05), (MAX_CLASSIC_LOOKS + 1, 0.05), (3, 0.0), (3, 1.0)] {
        assert_eq!(pocock_constant(looks, alpha), Err(StatsError::InvalidInput));
    }
}

#[test]
fn spending_ends_where_it_should() {
    for spending in [
        Spending::ObrienFleming,
        Spending::Pocock,
        Spending::Power(3.0),
        Spending::Hsd(-800.0),
        Spending::Hsd(0.0),
        Spending::Hsd(800.0),
    ] {
        assert_eq!(spending.spent(0.05, 0.0), Ok(0.0), "{spending:?}");
        for time in [1.0, 5.0] {
            let spent = spending.spent(0.05, time).unwrap();
            assert!((spent - 0.05).abs() < 1e-15, "{spending:?}: {spent}");
        }
    }
    assert_eq!(Spending::OpenRational.fraction(1.0), Ok(0.5));
    assert_eq!(Spending::OpenRational.fraction(1e300), Ok(1.0));
    for wrong in [Spending::Power(0.0), Spending::Hsd(f64::NAN)] {
        assert_eq!(wrong.fraction(0.5), Err(StatsError::InvalidInput));
    }
}
