//! The project's everyday commands: `cargo xtask <command>`. CI runs `cargo xtask ci`, unchanged.
//!
//! To add a command, write its function and give it a line in [`COMMANDS`]; what CI must run belongs in [`ci::run`].

mod ci;
mod deny;
mod ecosystem;
mod error;
mod migrations;
mod monitoring;
mod reliability;
mod server;
mod step;
mod tools;

use std::process::ExitCode;

use error::Error;

/// A command's name, what it does in one line, and the function that gets the arguments behind the name.
type Command = (
    &'static str,
    &'static str,
    fn(&[String]) -> Result<(), Error>,
);

const COMMANDS: &[Command] = &[
    (
        "test",
        "all tests; further arguments go to `cargo test`",
        ci::test,
    ),
    (
        "ci",
        "everything that CI runs: fmt, migrations-frozen, deny, clippy, doc, test, ecosystem",
        ci::run,
    ),
    (
        "deny",
        "licences, sources, banned and outdated crates, duplicates, by deny.toml",
        deny::run,
    ),
    (
        "migrations-frozen",
        "no migration differs from its line in migrations/CHECKSUMS",
        migrations::check,
    ),
    (
        "migrations-freeze",
        "adds new migrations to migrations/CHECKSUMS",
        migrations::freeze,
    ),
    (
        "otel",
        "the API with the feature otel: clippy, and spans at a collector; ci runs the latter alone",
        ci::otel,
    ),
    (
        "ecosystem",
        "published client packages against a running API",
        ecosystem::run,
    ),
    (
        "reliability",
        "the promises of docs/reliability.md at full size; takes more than an hour",
        reliability::run,
    ),
    (
        "bench",
        "the benchmarks; further arguments go to podium-bench",
        bench,
    ),
    (
        "demo",
        "the demonstration; further arguments go to podium-demo",
        demo,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<(), Error> {
    let Some((name, rest)) = args.split_first() else {
        print!("{}", usage());
        return Ok(());
    };
    if ["help", "-h", "--help"].contains(&name.as_str()) {
        print!("{}", usage());
        return Ok(());
    }
    match COMMANDS.iter().find(|(command, ..)| command == name) {
        Some((.., run)) => run(rest),
        None => Err(Error::UnknownCommand {
            name: name.clone(),
            usage: usage(),
        }),
    }
}

fn usage() -> String {
    let lines = COMMANDS
        .iter()
        .map(|(name, about, _)| format!("  {name:<18} {about}\n"));
    format!(
        "usage: cargo xtask <command> [arguments]\n\n{}",
        lines.collect::<String>()
    )
}

fn bench(args: &[String]) -> Result<(), Error> {
    release_binary("podium-bench", args)
}

fn demo(args: &[String]) -> Result<(), Error> {
    release_binary("podium-demo", args)
}

fn release_binary(package: &str, args: &[String]) -> Result<(), Error> {
    step::run(
        package,
        step::cargo(["run", "--release", "-p", package, "--"]).args(args),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_is_an_error_that_lists_the_known_ones() {
        let error = dispatch(&["tset".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("tset"), "{error}");
        assert!(error.contains("migrations-freeze"), "{error}");
    }
}
