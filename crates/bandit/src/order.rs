//! Orders drawn without replacement, with probabilities proportional to weights.

use rand::Rng;
use rand::seq::SliceRandom;

use crate::error::{BanditError, in_range};
use crate::sampler::open_uniform;
use crate::special::float_len;

/// A candidate in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Number of the candidate, from 0.
    pub candidate: usize,
    /// What the order was sorted by, largest first.
    pub score: f64,
}

/// Orders candidates: drawn one after the other without replacement, with probabilities proportional
/// to their weights. The score is weight / e, e exponentially distributed. Candidates of weight 0 come last, in
/// random order.
///
/// # Errors
/// [`BanditError::NoArms`] without weights; [`BanditError::OutOfRange`] for a weight that is
/// negative or not finite.
///
/// # Source
/// Efraimidis & Spirakis, *Weighted random sampling with a reservoir*, IPL 97 (2006).
pub fn draw(weights: &[f64], rng: &mut impl Rng) -> Result<Vec<Placed>, BanditError> {
    if weights.is_empty() {
        return Err(BanditError::NoArms);
    }
    let mut order = Vec::with_capacity(weights.len());
    for (candidate, weight) in weights.iter().enumerate() {
        let weight = in_range("weight", *weight, 0.0, f64::MAX)?;
        let score = weight / -open_uniform(rng).ln();
        order.push(Placed { candidate, score });
    }
    if weights.contains(&0.0) {
        order.shuffle(rng);
    }
    sort(&mut order);
    Ok(order)
}

/// Sorts by score, the largest first.
pub fn sort(order: &mut [Placed]) {
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// The probability of each candidate to come first: its weight over all weights, or all alike where
/// every weight is 0.
#[must_use]
pub fn first_place(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    if total > 0.0 {
        weights.iter().map(|weight| weight / total).collect()
    } else {
        vec![1.0 / float_len(weights.len().max(1)); weights.len()]
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    #[test]
    fn the_first_place_follows_the_weights() {
        let weights = [0.5, 0.3, 0.2, 0.0];
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut first = [0_u32; 4];
        for _ in 0..40_000 {
            let order = draw(&weights, &mut rng).unwrap();
            assert!(order.windows(2).all(|pair| pair[0].score >= pair[1].score));
            assert_eq!(order[3].candidate, 3);
            first[order[0].candidate] += 1;
        }
        for (count, wanted) in first.iter().zip(first_place(&weights)) {
            let share = f64::from(*count) / 40_000.0;
            assert!((share - wanted).abs() < 0.0125, "{share} {wanted}");
        }
    }

    #[test]
    fn weights_of_zero_share_what_is_left() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut first = [0_u32; 2];
        for _ in 0..2_000 {
            first[draw(&[0.0, 0.0], &mut rng).unwrap()[0].candidate] += 1;
        }
        assert!(first.iter().all(|count| *count > 850));
        assert_eq!(first_place(&[0.0, 0.0]), [0.5, 0.5]);
        assert_eq!(first_place(&[]), Vec::<f64>::new());
    }

    #[test]
    fn impossible_weights() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        assert!(draw(&[], &mut rng).is_err());
        assert!(draw(&[f64::NAN], &mut rng).is_err());
        assert!(draw(&[-1.0], &mut rng).is_err());
        assert!(draw(&[f64::INFINITY], &mut rng).is_err());
    }
}
