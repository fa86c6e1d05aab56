//! The yardsticks: a bare actix-web server that reads the body and answers fixed bytes, and the same with one INSERT a request.

use std::path::PathBuf;

use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer};
use podium_storage::connect::ConnectSettings;

use crate::error::BenchError;
use crate::yardstick::{Inserts, Table};

/// What to answer, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoArgs {
    /// Worker threads.
    #[arg(long)]
    workers: usize,
    /// The path that is answered.
    #[arg(long)]
    path: String,
    /// File with the bytes of every answer.
    #[arg(long)]
    answer: PathBuf,
    /// Database in which each request writes a row and commits it before the answer.
    #[arg(long, requires = "table", requires = "tag")]
    insert: Option<String>,
    /// Which rows.
    #[arg(long)]
    table: Option<Table>,
    /// What tells these rows from others.
    #[arg(long)]
    tag: Option<u32>,
}

async fn answer(body: Bytes, bytes: Data<Bytes>, inserts: Data<Option<Inserts>>) -> HttpResponse {
    // The body is read, as the measured handlers have to.
    drop(body);
    if let Some(inserts) = inserts.get_ref()
        && inserts.write().await.is_err()
    {
        return HttpResponse::ServiceUnavailable().finish();
    }
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(bytes.get_ref().clone())
}

/// Serves until it is killed. Prints where it listens, as the API does.
///
/// # Errors
/// When the answer cannot be read, no port can be had or the database cannot be reached.
pub(crate) async fn serve(args: EchoArgs) -> Result<(), BenchError> {
    let inserts = match (&args.insert, args.table, args.tag) {
        (Some(url), Some(table), Some(tag)) => {
            let settings = ConnectSettings::parse(url)?;
            Some(Inserts::open(&settings, table, tag).await?)
        }
        _ => None,
    };
    let inserts = Data::new(inserts);
    serve_with(args, inserts)
        .await
        .map_err(BenchError::run("echo"))
}

async fn serve_with(args: EchoArgs, inserts: Data<Option<Inserts>>) -> std::io::Result<()> {
    let bytes = Data::new(Bytes::from(std::fs::read(&args.answer)?));
    let path = args.path;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(bytes.clone())
            .app_data(inserts.clone())
            .app_data(web::PayloadConfig::new(1024 * 1024))
            .route(&path, web::post().to(answer))
    })
    .workers(args.workers)
    .bind(("127.0.0.1", 0))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await
}
