//! A pass of watching with what follows from it.

use podium_storage::audit::Origin;
use podium_storage::promotions::model::Promotion;

use super::{Engine, EngineError};
use crate::watch::{self, Ticked};

/// What a pass of watching did.
#[derive(Debug)]
pub struct Watch {
    /// What it found, moved and ended.
    pub ticked: Ticked,
    /// Promotions that it took back.
    pub rolled_back: Vec<Promotion>,
}

impl Engine {
    /// Opens and closes alerts, moves rollouts on, ends watches, and takes back what does harm. To be called about once a
    /// minute by one process; several at once do nothing twice.
    ///
    /// # Errors
    /// [`EngineError::Storage`] when the database does not answer.
    pub async fn watch(&self, origin: &Origin) -> Result<Watch, EngineError> {
        self.fold().await;
        self.look_around(origin).await
    }

    /// As [`Engine::watch`], on totals that were brought up to date by the caller.
    pub(super) async fn look_around(&self, origin: &Origin) -> Result<Watch, EngineError> {
        let seen = watch::look(&self.database).await?;
        let mut rolled_back = Vec::new();
        for harm in &seen.harms {
            let evidence = Some(harm.evidence.clone());
            match self
                .roll_back(harm.promotion_id, &harm.reason, false, evidence, origin)
                .await
            {
                Ok(promotion) => {
                    tracing::warn!(promotion.id = %promotion.id, experiment.name = promotion.experiment_name, reason = harm.reason, "a promotion was taken back");
                    rolled_back.push(promotion);
                }
                // A person, or another process, was faster.
                Err(EngineError::RolledBack(_) | EngineError::NotFound(_)) => {}
                Err(error) => {
                    tracing::error!(promotion.id = %harm.promotion_id, %error, "a promotion that does harm could not be taken back and will be tried again");
                }
            }
        }
        let ticked = watch::settle(&self.database, seen, &self.environment).await?;
        Ok(Watch {
            ticked,
            rolled_back,
        })
    }
}
