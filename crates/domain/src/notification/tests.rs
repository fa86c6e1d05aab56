use super::text::{facts, sentence};
use super::*;

fn named(id: i64, name: &str) -> Option<Named> {
    Some(Named {
        id,
        name: name.into(),
    })
}

fn promotion() -> Message {
    let subject = Subject::Promotion(Uuid::from_u128(7));
    Message {
        experiment: named(12, "homepage-cta-test"),
        variant: named(31, "variant-b"),
        evidence: Evidence {
            confidence_percent: Some(97.5),
            improvement_percent: Some(12.34),
            interval: Some(IntervalPercent {
                lower: Some(4.21),
                upper: Some(f64::INFINITY),
            }),
            sample_size: Some(2_412),
            ..Evidence::default()
        },
        ..Message::new(Event::Promotion, Level::Info, subject, DateTime::UNIX_EPOCH)
    }
}

fn value(message: &Message, label: &str) -> Option<String> {
    let fact = facts(message).into_iter().find(|fact| fact.label == label);
    fact.map(|fact| fact.value)
}

#[test]
fn a_promotion_reads_as_a_sentence() {
    assert_eq!(
        sentence(&promotion()),
        "Promoted variant-b in homepage-cta-test (97.5 % confidence, +12.3 %)"
    );
    assert_eq!(
        value(&promotion(), "Improvement").as_deref(),
        Some("+12.3 % (at least +4.2 %)")
    );
}

#[test]
fn a_confidence_is_never_rounded_up_to_certainty() {
    let mut message = promotion();
    for (confidence, text) in [
        (95.0, Some("95 %")),
        (99.999, Some("99.99 %")),
        (100.0, Some("100 %")),
        (f64::NAN, None),
    ] {
        message.evidence.confidence_percent = Some(confidence);
        assert_eq!(value(&message, "Confidence").as_deref(), text);
    }
}

#[test]
fn facts_that_are_not_known_are_left_out() {
    let labels = |message: &Message| -> Vec<&str> {
        facts(message).into_iter().map(|fact| fact.label).collect()
    };
    assert_eq!(
        labels(&promotion()),
        [
            "Experiment",
            "Variant",
            "Confidence",
            "Improvement",
            "Units"
        ]
    );
    let subject = Subject::Alert(4);
    let bare = Message::new(Event::Test, Level::Info, subject, DateTime::UNIX_EPOCH);
    assert!(facts(&bare).is_empty());
}

#[test]
fn a_rollback_closes_its_promotion_and_a_promotion_its_hold() {
    let promotion = promotion();
    let key = promotion.subject.dedup_key();
    assert_eq!(promotion.closes().as_deref(), Some("experiment:12"));
    let rollback = Message {
        event: Event::Rollback,
        ..promotion
    };
    assert_eq!(rollback.closes(), Some(key));
    assert!(!rollback.only_closes());
}

#[test]
fn a_disabling_ends_what_was_told_about_the_target_and_no_other_dead_letter_does() {
    let target = Uuid::from_u128(7);
    let told = |audience| {
        let subject = Subject::Target(target);
        let news = Message::new(
            Event::DeadLetter,
            Level::Warning,
            subject,
            DateTime::UNIX_EPOCH,
        );
        Message { audience, ..news }.closes()
    };
    let key = Subject::Target(target).dedup_key();
    assert_eq!(told(Audience::LeftBy(target)), Some(key));
    assert_eq!(told(Audience::AllBut(target)), None);
}

#[test]
fn what_can_happen_again_has_another_key_each_time() {
    let at = |event, seconds| {
        let when = DateTime::from_timestamp(seconds, 0).unwrap();
        Message::new(event, Level::Info, Subject::Experiment(1), when).key()
    };
    assert_eq!(at(Event::Promotion, 1), at(Event::Promotion, 2));
    assert_ne!(at(Event::Hold, 1), at(Event::Hold, 2));
    for hourly in [Event::DeadLetter, Event::PromotionFailed] {
        assert_eq!(at(hourly, 1), at(hourly, 3_599));
        assert_ne!(at(hourly, 1), at(hourly, 3_600));
    }
}

#[test]
fn a_message_survives_its_journey_through_json() {
    let message = promotion();
    let json = serde_json::to_string(&message).unwrap();
    let back: Message = serde_json::from_str(&json).unwrap();
    // An open side is no number in JSON, and stays open.
    assert_eq!(back.evidence.interval.unwrap().upper, None);
    assert_eq!(sentence(&back), sentence(&message));
    assert_eq!(back.subject, message.subject);
}
