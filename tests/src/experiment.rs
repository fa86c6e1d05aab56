//! Experiments set up with SQL, so that tests of the storefront do not depend on the admin routes.

use std::fmt::Write as _;

use podium_domain::bucketing::{Allocation, Bucketing, HashVersion, VariantTable};
use podium_domain::decimal::Decimal4;
use podium_domain::ids::VariantId;

use crate::app::TestApp;

/// What a test says about an experiment; the rest has defaults: two variants of equal weight, `control` and `b`, everybody
/// takes part, on a placement of its own.
pub struct ExperimentBuilder<'a> {
    app: &'a TestApp,
    name: String,
    target: String,
    variants: Vec<(String, String)>,
    allocation: String,
    salt: String,
    hash_version: i16,
}

impl<'a> ExperimentBuilder<'a> {
    pub(crate) fn new(app: &'a TestApp, name: &str) -> Self {
        let pair = |name: &str| (name.to_owned(), "1".to_owned());
        Self {
            app,
            name: name.to_owned(),
            target: format!("placement of {name}"),
            variants: vec![pair("control"), pair("b")],
            allocation: "100".into(),
            salt: name.to_owned(),
            hash_version: 2,
        }
    }

    /// Its placement.
    #[must_use]
    pub fn on(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// Names and weights; the first one is the control.
    #[must_use]
    pub fn variants(mut self, variants: &[(&str, &str)]) -> Self {
        self.variants = variants
            .iter()
            .map(|(name, weight)| ((*name).to_owned(), (*weight).to_owned()))
            .collect();
        self
    }

    /// Share of the units that take part, in percent.
    #[must_use]
    pub fn allocation(mut self, percent: &str) -> Self {
        percent.clone_into(&mut self.allocation);
        self
    }

    /// The hash of the earlier system (1) or ours (2).
    #[must_use]
    pub const fn hash_version(mut self, version: i16) -> Self {
        self.hash_version = version;
        self
    }

    /// Stores it as a running experiment.
    pub async fn running(self) -> Experiment {
        self.in_state("running").await
    }

    /// Stores it in a state of the life cycle. A completed one ended now.
    ///
    /// # Panics
    /// When the database refuses it.
    pub async fn in_state(self, status: &str) -> Experiment {
        let mut sql = format!(
            "WITH e AS (INSERT INTO experiments (name, target, status, start_date, end_date, traffic_allocation, salt,
                    hash_version, epoch)
                VALUES ('{}', '{}', '{status}', now(), CASE WHEN '{status}' = 'completed' THEN now() END, {}, '{}', {}, 1)
                RETURNING id),
             v AS (INSERT INTO experiment_variants (experiment_id, name, traffic_weight, is_control, config) SELECT e.id, x.*
                FROM e, (VALUES ",
            quoted(&self.name), quoted(&self.target), self.allocation, quoted(&self.salt), self.hash_version
        );
        for (at, (name, weight)) in self.variants.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let name = quoted(name);
            write!(
                sql,
                "{comma}('{name}', {weight}, {}, '{{\"is\": \"{name}\"}}'::jsonb)",
                at == 0
            )
            .unwrap();
        }
        sql.push_str(") AS x RETURNING id, traffic_weight)");
        write!(
            sql,
            " INSERT INTO experiment_epochs (experiment_id, epoch, traffic_allocation, weights)
              SELECT e.id, 1, {}, (SELECT jsonb_object_agg(v.id::text, v.traffic_weight) FROM v) FROM e",
            self.allocation
        )
        .unwrap();
        self.app.change(&sql).await;
        let id = format!(
            "SELECT id FROM experiments WHERE name = '{}'",
            quoted(&self.name)
        );
        let id = self.app.database().number(&id).await;
        let ids = format!(
            "SELECT name, id FROM experiment_variants WHERE experiment_id = {id} ORDER BY id"
        );
        let ids = self.app.database().rows(&ids).await;
        Experiment {
            id,
            name: self.name,
            target: self.target,
            variants: ids
                .into_iter()
                .map(|row| (row[0].clone(), row[1].parse().unwrap()))
                .collect(),
            weights: self
                .variants
                .into_iter()
                .map(|(_, weight)| weight)
                .collect(),
            allocation: self.allocation,
            salt: self.salt,
            hash_version: self.hash_version,
        }
    }
}

fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}

/// An experiment as it was stored.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its placement.
    pub target: String,
    /// Names and ids of its variants, in id order.
    pub variants: Vec<(String, i64)>,
    weights: Vec<String>,
    allocation: String,
    salt: String,
    hash_version: i16,
}

impl Experiment {
    /// The id of a variant.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn variant(&self, name: &str) -> i64 {
        self.variants
            .iter()
            .find(|(known, _)| known == name)
            .unwrap()
            .1
    }

    /// The variant that the weights at creation give a unit; `None` outside the allocation. The rules come from the domain
    /// crate, whose own tests hold them against frozen vectors.
    ///
    /// # Panics
    /// Never: the database took the same numbers.
    #[must_use]
    pub fn split(&self, unit: &str) -> Option<&str> {
        let units = |text: &str| text.parse::<Decimal4>().unwrap();
        let weights: Vec<(VariantId, u64)> = self
            .variants
            .iter()
            .zip(&self.weights)
            .map(|((_, id), weight)| {
                (
                    VariantId::new(*id).unwrap(),
                    units(weight).units().cast_unsigned(),
                )
            })
            .collect();
        let bucketing = Bucketing {
            salt: self.salt.clone(),
            version: HashVersion::from_number(self.hash_version.into()).unwrap(),
            allocation: Allocation::from_percent(units(&self.allocation)).unwrap(),
            split: VariantTable::new(&weights).unwrap(),
        };
        bucketing.place(unit).map(|at| self.variants[at].0.as_str())
    }

    /// The first `count` units of a series whose split is this variant.
    #[must_use]
    pub fn units_of(&self, variant: Option<&str>, count: usize) -> Vec<String> {
        (0..)
            .map(|n| format!("unit-{n}"))
            .filter(|unit| self.split(unit) == variant)
            .take(count)
            .collect()
    }
}
