//! What the programs do with settings that they cannot use, and what maintenance asks for.

use podium_tests::{ApiProcess, TestDatabase};

use crate::PROGRAM;

/// Maintenance signs nothing, so a job that migrates is not handed the key.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_needs_no_signing_secret() {
    let database = TestDatabase::empty().await;
    let without_key = [("DATABASE_URL", database.url()), ("JWT_SECRET", "")];
    for arguments in [
        &["migrate"][..],
        &["rebuild"],
        &["audit", "verify"],
        &["forget", "nobody"],
    ] {
        let (status, text) = ApiProcess::run(PROGRAM, arguments, &without_key).await;
        assert!(status.success(), "{arguments:?}: {text}");
    }
    for arguments in [&[][..], &["token", "--user", "1"]] {
        let (status, text) = ApiProcess::run(PROGRAM, arguments, &without_key).await;
        assert_eq!(status.code(), Some(2), "{text}");
        assert!(text.contains("JWT_SECRET is required"), "{text}");
    }
}

/// Maintenance goes past the pooler: with an address of the server itself the pooler may be away.
#[tokio::test(flavor = "multi_thread")]
async fn maintenance_uses_the_direct_address() {
    let database = TestDatabase::empty().await;
    let variables = [
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/pooler"),
        ("DATABASE_DIRECT_URL", database.url()),
    ];
    for arguments in [&["migrate"][..], &["rebuild"]] {
        let (status, text) = ApiProcess::run(PROGRAM, arguments, &variables).await;
        assert!(status.success(), "{arguments:?}: {text}");
    }
}

/// Service managers do not try again after exit code 2.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_named_and_ends_with_two() {
    let good = "postgres://podium@127.0.0.1:1/x";
    for (name, value) in [
        ("DATABASE_URL", "nonsense hidden"),
        (
            "DATABASE_URL",
            "postgres://u:hidden@127.0.0.1/x?sslmode=hide",
        ),
        ("DATABASE_DIRECT_URL", "http://hidden"),
        ("MIGRATION_DATABASE_URL", "http://hidden"),
        ("RUST_LOG", "podium_api=loud"),
    ] {
        let variables = [("DATABASE_URL", good), (name, value)];
        let (status, text) = ApiProcess::run(PROGRAM, &[], &variables).await;
        assert_eq!(status.code(), Some(2), "{text}");
        let said = text.strip_prefix("podium-api: ").unwrap_or_default();
        assert!(said.starts_with(name) && !text.contains("hidden"), "{text}");
    }
}

/// A lifetime that ends inside of a character is refused, not a crash.
#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_is_read_or_refused() {
    for (ttl, code) in [("1é", 2), ("25h", 2), ("24h", 0)] {
        let arguments = ["token", "--user", "1", "--ttl", ttl];
        let variables = [("DATABASE_URL", "postgres://podium@127.0.0.1:1/x")];
        let (status, text) = ApiProcess::run(PROGRAM, &arguments, &variables).await;
        assert_eq!(status.code(), Some(code), "{ttl}: {text}");
    }
}
