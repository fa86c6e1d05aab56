//! The yardstick: a bare actix-web server that reads the body and answers fixed bytes.

use std::path::PathBuf;

use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpResponse, HttpServer};

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
}

async fn answer(body: Bytes, bytes: Data<Bytes>) -> HttpResponse {
    // The body is read, as the measured handlers have to.
    drop(body);
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(bytes.get_ref().clone())
}

/// Serves until it is killed. Prints where it listens, as the API does.
///
/// # Errors
/// When the answer cannot be read or no port can be had.
pub(crate) async fn serve(args: EchoArgs) -> std::io::Result<()> {
    let bytes = Data::new(Bytes::from(std::fs::read(&args.answer)?));
    let path = args.path;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(bytes.clone())
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
