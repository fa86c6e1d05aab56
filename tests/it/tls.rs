//! Encrypted connections to the database.

use std::path::{Path, PathBuf};

use podium_api::config::Config;
use podium_api::server::{StartError, start};
use podium_storage::StorageError;
use podium_tests::app::{SECRET, Variables};
use podium_tests::certificates::Authority;
use podium_tests::{OwnPostgres, TestApp, TestDatabase, eventually};
use serde_json::json;

/// Gives the server a certificate for these names.
async fn certify(postgres: &OwnPostgres, authority: &Authority, names: &[&str]) {
    let identity = authority.certify(names);
    let certificate = postgres.private_file("server.crt", &identity.pem);
    let key = postgres.private_file("server.key", &identity.key_pem);
    let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
    let session = podium_tests::database::connect(&with(&postgres.url(), "disable", None)).await;
    for setting in [
        format!(
            "ALTER SYSTEM SET ssl_cert_file = '{}'",
            quoted(&certificate)
        ),
        format!("ALTER SYSTEM SET ssl_key_file = '{}'", quoted(&key)),
        "ALTER SYSTEM SET ssl = on".into(),
        "SELECT pg_reload_conf()".into(),
    ] {
        session.batch_execute(&setting).await.unwrap();
    }
    eventually("the server has loaded its certificate", async || {
        let probe = podium_tests::database::connect(&with(&postgres.url(), "disable", None)).await;
        let row = probe
            .query_one("SELECT current_setting('ssl')", &[])
            .await
            .unwrap();
        row.get::<_, String>(0) == "on"
    })
    .await;
}

fn with(url: &str, mode: &str, root: Option<&Path>) -> String {
    let root = root
        .map(|root| format!("&sslrootcert={}", root.display()))
        .unwrap_or_default();
    format!("{url}?sslmode={mode}{root}")
}

/// Whether all connections of the program are encrypted, or none.
async fn encrypted(url: &str) -> Vec<Vec<String>> {
    let database = TestDatabase::on(with(url, "disable", None)).await;
    let sql = "SELECT DISTINCT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
               WHERE a.application_name IN ('podium serve', 'podium work')";
    database.rows(sql).await
}

async fn serves(url: String) -> TestApp {
    let app = TestApp::setup()
        .database(TestDatabase::on(url).await)
        .start()
        .await;
    let name = format!(
        "e{}",
        app.database()
            .number("SELECT count(*) FROM experiments")
            .await
    );
    app.experiment(&name).running().await;
    app.variant_of(&name, "u").await;
    app.track("click", json!({"user_id": "u", "experiment_id": name}))
        .await
        .ok();
    app
}

async fn refused(url: &str) -> StartError {
    let variables = Variables(
        [("DATABASE_URL", url), ("JWT_SECRET", SECRET), ("PORT", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    );
    let config = Config::read(&variables).unwrap();
    let clock = std::sync::Arc::new(podium_api::clock::SystemClock);
    match start(config, clock, true).await {
        Err(error) => error,
        Ok(running) => {
            running.stop().await;
            panic!("it started with {url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_means_what_it_says() {
    let postgres = OwnPostgres::start();
    let url = postgres.url();
    // Without a certificate: whoever insists on encryption is refused.
    let error = refused(&with(&url, "require", None)).await;
    assert!(
        matches!(
            error,
            StartError::Storage(StorageError::Db(_) | StorageError::Pool(_))
        ),
        "{error}"
    );
    drop(serves(with(&url, "prefer", None)).await);

    let right = Authority::new("the right authority");
    let wrong = Authority::new("another authority");
    let roots: [PathBuf; 2] = [
        postgres.file("right.pem", &right.pem),
        postgres.file("wrong.pem", &wrong.pem),
    ];
    let [right_root, wrong_root] = roots.each_ref().map(PathBuf::as_path);
    certify(&postgres, &right, &["127.0.0.1"]).await;
    for (mode, root, expected) in [
        ("disable", None, "f"),
        ("prefer", None, "t"),
        ("require", None, "t"),
        ("require", Some(right_root), "t"),
        ("verify-ca", Some(right_root), "t"),
        ("verify-full", Some(right_root), "t"),
    ] {
        let app = serves(with(&url, mode, root)).await;
        assert_eq!(encrypted(&url).await, [[expected]], "{mode} {root:?}");
        drop(app);
        eventually("its connections are gone", async || {
            encrypted(&url).await.is_empty()
        })
        .await;
    }
    let password = url.split(['@', ':']).nth(2).unwrap();
    for (mode, root) in [
        ("require", Some(wrong_root)),
        ("verify-ca", Some(wrong_root)),
        ("verify-full", Some(wrong_root)),
        // The system's roots do not know our authority.
        ("verify-full", None),
    ] {
        let error = refused(&with(&url, mode, root)).await.to_string();
        assert!(!error.contains(password), "{mode} shows the password");
    }
    certify(&postgres, &right, &["db.example"]).await;
    refused(&with(&url, "verify-full", Some(right_root))).await;
    drop(serves(with(&url, "require", None)).await);
}

/// A root that cannot be used is a fault of the configuration, and says which file it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_cannot_be_read_is_named() {
    let missing = refused(
        "postgres://podium:hidden@127.0.0.1:1/podium?sslmode=verify-full&sslrootcert=/no/such.pem",
    )
    .await
    .to_string();
    assert!(
        missing.contains("/no/such.pem") && !missing.contains("hidden"),
        "{missing}"
    );
    let unknown = refused("postgres://podium:hidden@127.0.0.1:1/podium?sslmode=always")
        .await
        .to_string();
    assert!(
        unknown.contains("always") && !unknown.contains("hidden"),
        "{unknown}"
    );
}
