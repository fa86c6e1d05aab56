//! Indices of deterministic policies against values made with 40 digits.

mod golden;

use golden::{Mismatches, cases, integers, load};
use podium_bandit::index::{Index, index_values};
use podium_bandit::{Arms, Counts, Prior};

#[test]
fn golden_index_values() {
    let Some(file) = load("bandit", "index_values.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "cases").iter().enumerate() {
        let (plays, successes) = (integers(&case["plays"]), integers(&case["successes"]));
        let pairs = plays.iter().zip(&successes);
        let counts: Vec<_> = pairs.map(|(n, s)| Counts::new(*n, *s).unwrap()).collect();
        let arms = Arms::from_counts(Prior::FLAT, &counts);
        for (name, index) in [
            ("ucb1", Index::Ucb1 { c: 1.0 }),
            ("ucb1_tuned", Index::Ucb1Tuned),
            ("kl_ucb_c0", Index::KlUcb { c: 0.0 }),
            ("kl_ucb_c3", Index::KlUcb { c: 3.0 }),
            ("imed", Index::Imed),
        ] {
            let got = index_values(index, &arms);
            found.numbers(&format!("{number} {name}"), &got, &case[name], 0.0, 1e-9);
        }
    }
    found.finish();
}
