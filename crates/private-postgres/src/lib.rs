//! A PostgreSQL server of Podium's own, for when nobody names one.
//!
//! [`PrivatePostgres::start`] takes a folder and gives back a running server: it finds the server
//! programs that are installed (or installs them, if it may), makes a cluster in the folder when
//! there is none, chooses a free port on the loopback, and waits until the server takes
//! connections. [`testing::SharedServer`] is the same thing for test runs: one server that all
//! test processes share and that goes away by itself.
//!
//! # What it promises
//!
//! - The server listens on `127.0.0.1` alone, has no Unix socket, and asks everybody for a random
//!   password which only the owner of the folder can read.
//! - With [`Durability::Full`] an acknowledged commit survives a crash of the machine.
//! - One process owns a folder at a time; a second one is refused with [`Error::AlreadyRunning`].
//! - The server is in a process group of its own, so Ctrl-C on the terminal does not reach it
//!   before its owner has drained.
//!
//! # When a process dies
//!
//! The server outlives an owner that is killed: a server that dies with its client loses the
//! shutdown checkpoint for nothing. The next start on the folder finds such an orphan, stops it
//! in the orderly way and starts anew. Two locks, both released by the kernel when their holders
//! die, say what is going on:
//!
//! | file | held by | says |
//! | --- | --- | --- |
//! | `owner.lock` | the process that called `start` | somebody is responsible for the folder |
//! | `server.lock` | the postmaster and all its backends, as their standard input | the cluster is in use |
//!
//! `server.lock` is what makes it safe to remove a `postmaster.pid` left by a crash, even if its
//! process id now belongs to some other program: as long as any process of the old server
//! lives, the lock can not be had.
//!
//! # What lies in the folder
//!
//! `postgres/` (the cluster, mode 0700), `postgres.log`, `postgres.password` (mode 0600),
//! `postgres.port` (the port used last), `owner.lock` and `server.lock`. Other files may lie
//! beside these.
//!
//! All calls block. From async code use a blocking thread.

mod binaries;
mod cluster;
mod error;
mod folder;
mod install;
mod launch;
mod lock;
mod processes;
mod random;
mod server;
pub mod testing;
mod user;

pub use error::Error;
pub use folder::{default_data_dir, prepare_data_dir};
pub use lock::LockGuard;
pub use server::{Durability, PrivatePostgres, Settings, running_url};

/// The oldest major version of PostgreSQL that Podium works with.
pub const MIN_MAJOR_VERSION: u32 = 15;
