//! Links to ourselves, and how a promotion is taken back.

use podium_domain::notification::{Event, Message, Subject};

/// Longest address that every channel takes.
const LONGEST: usize = 2_000;

/// Where Podium is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    base: Option<String>,
}

impl Links {
    /// Links below `base`, such as `https://podium.example.com`; none without one.
    #[must_use]
    pub fn new(base: Option<&str>) -> Self {
        let base = base.map(|base| base.trim_end_matches('/').to_owned());
        Self {
            base: base.filter(|base| base.len() < LONGEST),
        }
    }

    /// The page about what a message is about: the operation of the browsable API that shows it.
    #[must_use]
    pub fn page(&self, message: &Message) -> Option<String> {
        let base = self.base.as_ref()?;
        let operation = match (message.subject, &message.experiment) {
            (Subject::Promotion(_), _) => "Promotions/getPromotion",
            (Subject::Alert(_), _) => "Alerts/listAlerts",
            (Subject::Experiment(_), _) | (Subject::Target(_), Some(_)) => "Analytics/report",
            (Subject::Target(_), None) => "Notifications/listNotificationLogs",
        };
        Some(format!("{base}/docs/#/{operation}"))
    }

    /// How to take a promotion back, where there is one to take back.
    #[must_use]
    pub fn how_to_roll_back(message: &Message) -> Option<String> {
        match (message.event, message.subject) {
            (Event::Promotion | Event::WatchEnded, Subject::Promotion(id)) => {
                Some(format!("promotion-worker rollback {id} --reason \"why\""))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use podium_domain::notification::Level;

    #[test]
    fn links_lead_to_our_own_address_only() {
        let message = Message::new(
            Event::Test,
            Level::Info,
            Subject::Alert(7),
            DateTime::UNIX_EPOCH,
        );
        let links = Links::new(Some("https://podium.example.com/"));
        assert_eq!(
            links.page(&message).as_deref(),
            Some("https://podium.example.com/docs/#/Alerts/listAlerts")
        );
        assert_eq!(Links::new(None).page(&message), None);
    }
}
