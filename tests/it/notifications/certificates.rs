//! Certificates of webhooks and mail relays: what is trusted is sent to, and anything else hears nothing.

use podium_notifications::settings::SmtpMode;
use podium_tests::certificates::{Authority, Identity};
use podium_tests::postbox::{Manners, Postbox, Protection};
use podium_tests::sink::{Front, Sink};
use rustls::pki_types::CertificateDer;

use super::mail::{mail_settings, one_message};
use super::*;

/// What a server shows, and whether a client who trusts the authority sends to it.
fn identities() -> (CertificateDer<'static>, [(&'static str, Identity, bool); 5]) {
    let authority = Authority::new("trusted");
    let here = ["localhost"];
    let shown = [
        ("a good one", authority.certify(&here), true),
        (
            "one that has run out",
            authority.certify_expired(&here),
            false,
        ),
        (
            "one for another name",
            authority.certify(&["elsewhere.example.com"]),
            false,
        ),
        (
            "one that is its own authority",
            Identity::self_signed(&here),
            false,
        ),
        (
            "one of an authority that nobody knows",
            Authority::new("unknown").certify(&here),
            false,
        ),
    ];
    (authority.root(), shown)
}

async fn reason(database: &TestDatabase) -> String {
    let sql = "SELECT coalesce(error_message, '') FROM notification_logs";
    database.text(sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_must_show_a_certificate_that_is_trusted() {
    let (root, identities) = identities();
    for (what, identity, trusted) in identities {
        let sink = Sink::friendly().await;
        let front = Front::start(&identity, &sink).await;
        let database = TestDatabase::migrated().await;
        webhook(&database, "a", &front.url).await;
        enqueue(&storage(&database), &[promotion(1)]).await;
        let mut settings = settings();
        settings.extra_roots = vec![root.clone()];
        deliver_once(&sender(&database, settings)).await;
        let wanted = if trusted { "sent 1" } else { "pending 1" };
        assert_eq!(
            states(&database).await,
            wanted,
            "{what}: {}",
            reason(&database).await
        );
        assert_eq!(sink.received().len(), usize::from(trusted), "{what}");
        let why = reason(&database).await;
        assert!(trusted || why.contains("certificate"), "{what}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_relay_must_show_a_certificate_that_is_trusted() {
    let (root, identities) = identities();
    for (what, identity, trusted) in identities {
        for (tls, mode) in [
            (Protection::Tls, SmtpMode::Tls),
            (Protection::StartTls, SmtpMode::StartTls),
        ] {
            let manners = Manners {
                tls,
                identity: Some(identity.clone()),
                ..Manners::default()
            };
            let postbox = Postbox::start(manners).await;
            let database = one_message("a").await;
            let mut settings = mail_settings(&postbox, mode);
            settings.extra_roots = vec![root.clone()];
            deliver_once(&sender(&database, settings)).await;
            let wanted = if trusted { "sent 1" } else { "pending 1" };
            assert_eq!(
                states(&database).await,
                wanted,
                "{what}: {}",
                reason(&database).await
            );
            assert_eq!(postbox.mails().len(), usize::from(trusted), "{what}");
            let commands = postbox.commands();
            let login = commands.iter().any(|command| command.starts_with("AUTH"));
            assert_eq!(
                login, trusted,
                "no password is said to {what}: {commands:?}"
            );
        }
    }
}
