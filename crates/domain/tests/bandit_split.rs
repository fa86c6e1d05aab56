//! What a bandit over variants draws, against frozen vectors.

#![allow(clippy::unwrap_used, reason = "helpers of tests may end them")]

use podium_domain::bucketing::{Allocation, BanditSplit, VariantTable};
use podium_domain::ids::VariantId;

const SALT: &str = "homepage-bandit";

/// Unit, index of the variant, and whether the unit is in the even share, for an even share of 10 % and weights of 70, 20
/// and 10 %. Computed apart from this program, with MD5 and whole numbers; they must never be edited.
const VECTORS: [(&str, usize, bool); 24] = [
    ("u0", 0, false),
    ("u1", 2, true),
    ("u2", 2, false),
    ("u3", 0, false),
    ("u4", 0, false),
    ("u5", 0, false),
    ("u6", 1, false),
    ("u7", 0, false),
    ("u8", 0, false),
    ("u9", 2, false),
    ("u10", 0, true),
    ("u11", 0, false),
    ("u12", 0, false),
    ("u13", 0, false),
    ("u14", 0, false),
    ("u15", 0, false),
    ("u16", 0, false),
    ("u17", 1, false),
    ("u18", 0, false),
    ("u19", 0, false),
    ("u20", 0, false),
    ("u21", 0, false),
    ("u22", 2, false),
    ("u23", 0, false),
];

fn table(weights: [u64; 3]) -> VariantTable {
    let weights: Vec<_> = (1..)
        .zip(weights)
        .map(|(id, weight)| (VariantId::new(id).unwrap(), weight))
        .collect();
    VariantTable::new(&weights).unwrap()
}

fn split(weights: Option<[u64; 3]>) -> BanditSplit {
    BanditSplit {
        control_share: Allocation::from_fraction(0.1).unwrap(),
        even: table([1, 1, 1]),
        adaptive: weights.map(table),
    }
}

#[test]
fn draws_are_those_of_the_vectors() {
    let split = split(Some([700_000, 200_000, 100_000]));
    for (unit, index, is_even) in VECTORS {
        let drawn = split.draw(SALT, unit);
        assert_eq!((drawn.index, drawn.is_even), (index, is_even), "{unit}");
        let share = if is_even {
            1.0 / 3.0
        } else {
            [0.7, 0.2, 0.1][index]
        };
        assert!((drawn.propensity - share).abs() < 1e-15, "{unit}");
    }
}

#[test]
fn the_even_share_never_moves() {
    let units: Vec<String> = (0..20_000).map(|n| format!("unit-{n}")).collect();
    let first = split(Some([900_000, 50_000, 50_000]));
    let (mut even, mut each) = (0, [0_u32; 3]);
    for unit in &units {
        let drawn = first.draw(SALT, unit);
        let later = split(Some([50_000, 50_000, 900_000])).draw(SALT, unit);
        assert_eq!(drawn.is_even, later.is_even);
        if drawn.is_even {
            assert_eq!(drawn, later);
            even += 1;
            each[drawn.index] += 1;
        }
    }
    // Within four standard errors of 10 %, and of a third of these.
    assert!((1_830..=2_170).contains(&even), "{even}");
    assert!(each.iter().all(|n| (560..=780).contains(n)), "{each:?}");
    let before = split(None);
    assert!(units.iter().all(|unit| before.draw(SALT, unit).is_even));
}
