//! Posterior moments and quantiles.

mod golden;

use golden::{Mismatches, cases, load};
use podium_bandit::{Counts, Prior};

#[test]
fn golden_beta_posterior() {
    let Some(file) = load("bandit", "beta_posterior.json") else {
        return;
    };
    let mut found = Mismatches::default();
    for (number, case) in cases(&file, "cases").iter().enumerate() {
        let float = |name: &str| case[name].as_f64().unwrap();
        let whole = |name: &str| case[name].as_u64().unwrap();
        let prior = Prior::new(float("prior_alpha"), float("prior_beta")).unwrap();
        let counts = Counts::new(whole("plays"), whole("successes")).unwrap();
        let posterior = prior.posterior(counts.into());
        for (name, got) in [
            ("alpha", posterior.alpha()),
            ("beta", posterior.beta()),
            ("mean", posterior.mean()),
            ("variance", posterior.variance()),
            ("q025", posterior.quantile(0.025).unwrap()),
            ("q05", posterior.quantile(0.05).unwrap()),
            ("q50", posterior.quantile(0.5).unwrap()),
            ("q95", posterior.quantile(0.95).unwrap()),
            ("q975", posterior.quantile(0.975).unwrap()),
        ] {
            found.number(&format!("{number} {name}"), got, &case[name], 0.0, 1e-9);
        }
        let back = posterior.cdf(posterior.quantile(0.3).unwrap());
        found.note((back - 0.3).abs() < 1e-11, || {
            format!("{number}: cdf {back}")
        });
    }
    found.finish();
}
