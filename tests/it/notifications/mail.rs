//! E-mail over a real SMTP conversation.

use podium_notifications::settings::{Smtp, SmtpMode};
use podium_settings::Secret;
use podium_storage::outbox::Outcome;
use podium_tests::postbox::{Manners, Postbox, Protection};
use podium_tests::{ApiProcess, TestDatabase};

use super::*;

const TO: &str = "email_address='ops@example.com'";

/// A sender over this server, with a password where the line is protected.
fn mailer(database: &TestDatabase, postbox: &Postbox, mode: SmtpMode) -> Arc<Sender> {
    sender(database, mail_settings(postbox, mode))
}

pub(super) fn mail_settings(postbox: &Postbox, mode: SmtpMode) -> Settings {
    let mut settings = settings();
    let password = ("podium".to_owned(), Secret::new("correct horse"));
    settings.smtp = Some(Smtp {
        host: "localhost".into(),
        port: postbox.port,
        mode,
        login: (mode != SmtpMode::None).then_some(password),
        from: "Podium <podium@example.com>".parse().unwrap(),
    });
    settings.extra_roots = vec![postbox.root.clone()];
    settings
}

fn replying(command: &'static str, reply: &'static str) -> Manners {
    Manners {
        replies: vec![(command, reply)],
        ..Manners::default()
    }
}

fn protected(tls: Protection) -> Manners {
    Manners {
        tls,
        ..Manners::default()
    }
}

pub(super) async fn one_message(channel_user: &str) -> TestDatabase {
    let database = TestDatabase::migrated().await;
    target(&database, channel_user, "email", TO).await;
    enqueue(&storage(&database), &[promotion(1)]).await;
    database
}

async fn error(database: &TestDatabase) -> String {
    let sql = "SELECT coalesce(error_message, '') FROM notification_logs LIMIT 1";
    database.text(sql).await
}

async fn error_of_first(database: &TestDatabase) -> String {
    let sql = "SELECT coalesce(max(error_message), '') FROM notification_logs WHERE attempts = 1";
    database.text(sql).await
}

/// A mail arrives, and the relay's reply is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives() {
    let postbox = Postbox::start(Manners::default()).await;
    let database = one_message("a").await;
    let sender = mailer(&database, &postbox, SmtpMode::None);
    assert_eq!(deliver_once(&sender).await, 1);
    assert_eq!(states(&database).await, "sent 1");
    let mails = postbox.mails();
    let id = database
        .text("SELECT id::text FROM notification_logs")
        .await;
    assert!(mails[0].contains(&format!("Message-ID: <{id}@example.com>")));
    assert!(mails[0].contains("Auto-Submitted: auto-generated"));
    let reply = "SELECT response_data ->> 'text' FROM notification_logs";
    assert!(database.text(reply).await.contains("queued as 42"));
}

/// Refusals for now are tried again; the same goes for a line that breaks after the final dot, with the same id.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_off_is_sent_again() {
    for (command, reply) in [
        ("MAIL", "421 4.3.2 going down"),
        ("RCPT", "450 4.2.1 busy"),
        ("RCPT", "451 4.3.0 later"),
        ("MAIL", "452 4.3.1 full"),
        (".", "452 4.3.1 full"),
        // It is positive, and no answer to a mail.
        (".", "354 go on"),
    ] {
        let postbox = Postbox::start(replying(command, reply)).await;
        let database = one_message("a").await;
        deliver_once(&mailer(&database, &postbox, SmtpMode::None)).await;
        assert_eq!(states(&database).await, "pending 1", "{reply}");
    }
    let postbox = Postbox::start(Manners {
        drops_after_data: true,
        ..Manners::default()
    })
    .await;
    let database = one_message("a").await;
    let sender = mailer(&database, &postbox, SmtpMode::None);
    deliver_once(&sender).await;
    assert_eq!(states(&database).await, "pending 1");
    let_time_pass(&database).await;
    deliver_once(&sender).await;
    let mails = postbox.mails();
    assert_eq!((mails.len(), &mails[0]), (2, &mails[1]));
}

/// A mail that gets no answer takes its connection with it: the next one reads its own reply, which is a refusal here.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_comes_late_is_nobody_elses() {
    for (replies, expected) in [
        (vec![], "pending 1, sent 1"),
        (vec![(".", "554 5.6.0 no")], "failed 1, pending 1"),
    ] {
        let postbox = Postbox::start(Manners {
            hangs_once: true,
            replies,
            ..Manners::default()
        })
        .await;
        let database = one_message("a").await;
        enqueue(&storage(&database), &[promotion(2)]).await;
        let mut settings = mail_settings(&postbox, SmtpMode::None);
        settings.time_limits.mail = SOON;
        let sender = sender(&database, settings);
        assert_eq!(deliver_once(&sender).await, 1);
        assert_eq!(states(&database).await, "pending 2");
        assert!(error_of_first(&database).await.contains("too long"));
        assert_eq!(deliver_once(&sender).await, 1);
        assert_eq!(states(&database).await, expected);
        let commands = postbox.commands();
        let greetings = commands.iter().filter(|c| c.starts_with("EHLO")).count();
        assert_eq!(greetings, 2, "{commands:?}");
    }
}

/// What ended well is used again, and a relay that repeats the password shows it to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_many_and_no_answer_shows_the_password() {
    let manners = Manners {
        replies: vec![(".", "250 ok correct horse Y29ycmVjdCBob3JzZQ==")],
        ..protected(Protection::Tls)
    };
    let postbox = Postbox::start(manners).await;
    let database = one_message("a").await;
    enqueue(&storage(&database), &[promotion(2)]).await;
    let sender = mailer(&database, &postbox, SmtpMode::Tls);
    while deliver_once(&sender).await > 0 {}
    assert_eq!(states(&database).await, "sent 2");
    let commands = postbox.commands();
    let logins = commands.iter().filter(|c| c.starts_with("AUTH")).count();
    assert_eq!(logins, 1, "{commands:?}");
    let reply = "SELECT response_data ->> 'text' FROM notification_logs LIMIT 1";
    assert_eq!(database.text(reply).await, "ok *** ***");
}

/// An address that refuses three messages in a row is disabled.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_refuses_is_disabled() {
    let postbox = Postbox::start(replying("RCPT", "550 5.1.1 no such user")).await;
    let database = one_message("a").await;
    let more: Vec<_> = (2..5).map(promotion).collect();
    enqueue(&storage(&database), &more).await;
    let sender = mailer(&database, &postbox, SmtpMode::None);
    for expected in ["failed 1, pending 3", "failed 2, pending 2", "failed 4"] {
        assert_eq!(deliver_once(&sender).await, 1);
        assert_eq!(states(&database).await, expected);
    }
    let enabled = "SELECT enabled::text FROM notification_configs";
    assert_eq!(database.text(enabled).await, "false");
}

/// What the relay says may name people: it stands in the log of deliveries, whose owner they are, and in no other.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_says_stays_with_the_owner() {
    for (reply, expected) in [
        (
            "550 5.1.1 <bob@example.com>: no such user",
            "the mail server refused the message (status 550)",
        ),
        (
            "450 4.2.1 <bob@example.com>: busy",
            "the mail server put it off (status 450)",
        ),
        (
            "bob@example.com is on holiday",
            "no mail server: what it said is no reply",
        ),
    ] {
        let postbox = Postbox::start(replying("RCPT", reply)).await;
        let database = one_message("a").await;
        let (url, relay) = (database.url(), format!("smtp://localhost:{}", postbox.port));
        let variables = [
            ("DATABASE_URL", url),
            ("SMTP_URL", &relay),
            ("SMTP_FROM", "podium@example.com"),
            (
                "RUST_LOG",
                "info,podium_notifications=trace,podium_storage=trace",
            ),
        ];
        let process = ApiProcess::start(crate::PROGRAM, &variables).await;
        eventually("the try is recorded", async || {
            error(&database).await == expected
        })
        .await;
        let log = process.log();
        assert!(log.contains(expected), "{log}");
        assert!(!log.contains("bob@"), "{log}");
        let said = "SELECT response_data ->> 'text' FROM notification_logs LIMIT 1";
        assert!(database.text(said).await.contains("bob@example.com"));
    }
}

/// When the relay refuses our account, no mail of anybody is tried any further.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_account_ends_all_mail() {
    let manners = Manners {
        replies: vec![("AUTH", "535 5.7.8 who are you")],
        ..protected(Protection::Tls)
    };
    let postbox = Postbox::start(manners).await;
    let database = one_message("a").await;
    target(&database, "b", "email", "email_address='b@example.com'").await;
    enqueue(&storage(&database), &[promotion(2)]).await;
    let sender = mailer(&database, &postbox, SmtpMode::Tls);
    let taken = sender.claim(1).await.unwrap();
    let outcome = sender.send(&taken[0]).await;
    sender.record(&taken[0], &outcome).await;
    // The news of it waits for somebody else's channel, and there is none but mail.
    let failed = "SELECT count(*) FROM notification_logs WHERE status = 'failed' AND alert_type = 'promotion'";
    assert_eq!(database.number(failed).await, 3);
    let enabled = "SELECT count(*) FROM notification_configs WHERE enabled";
    assert_eq!(database.number(enabled).await, 2);
}

/// Over TLS, at once or after STARTTLS, with a password.
#[tokio::test(flavor = "multi_thread")]
async fn mail_is_protected() {
    for (tls, mode) in [
        (Protection::Tls, SmtpMode::Tls),
        (Protection::StartTls, SmtpMode::StartTls),
    ] {
        let postbox = Postbox::start(protected(tls)).await;
        let database = one_message("a").await;
        deliver_once(&mailer(&database, &postbox, mode)).await;
        assert_eq!(
            states(&database).await,
            "sent 1",
            "{}",
            error(&database).await
        );
        let commands = postbox.commands();
        assert!(commands.iter().any(|c| c.starts_with("AUTH")));
    }
}

/// A server that does not offer STARTTLS, or that somebody in between keeps from offering it, gets no password and no mail.
#[tokio::test(flavor = "multi_thread")]
async fn without_starttls_nothing_is_said() {
    let postbox = Postbox::start(Manners::default()).await;
    let database = one_message("a").await;
    deliver_once(&mailer(&database, &postbox, SmtpMode::StartTls)).await;
    assert_eq!(states(&database).await, "pending 1");
    let commands = postbox.commands();
    assert!(
        commands
            .iter()
            .all(|c| c.starts_with("EHLO") || c.starts_with("QUIT")),
        "{commands:?}"
    );
}

/// A mail that finds every connection taken waits no longer than a mail may take: its lease holds until it is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_waits_for_a_connection_within_its_own_time() {
    let manners = Manners {
        hangs: true,
        ..Manners::default()
    };
    let postbox = Postbox::start(manners).await;
    let database = one_message("a").await;
    for user in ["b", "c"] {
        target(
            &database,
            user,
            "email",
            &format!("email_address='{user}@example.com'"),
        )
        .await;
    }
    enqueue(&storage(&database), &[promotion(2)]).await;
    let mut settings = mail_settings(&postbox, SmtpMode::None);
    settings.time_limits.mail = SOON;
    let sender = sender(&database, settings);
    let taken = sender.claim(16).await.unwrap();
    let sending = taken.iter().map(|delivery| sender.send(delivery));
    let outcomes = futures_util::future::join_all(sending).await;
    let later = |outcome: &Outcome| matches!(outcome, Outcome::Retry { .. });
    assert!(
        outcomes.len() == 3 && outcomes.iter().all(later),
        "{outcomes:?}"
    );
    assert_eq!(postbox.mails().len(), 2, "the third one had no time left");
}
