//! A wire to the database that breaks behind a chosen statement, as if the program had been killed there.
//!
//! The statement is carried out and its answer lost; every connection of the program ends with it, and no new one is
//! made. What the server does with a broken connection (rolling back, giving up locks) is over when [`Wire::settled`]
//! returns.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::TestDatabase;
use crate::eventually;

/// Asks whether the server speaks TLS, instead of a first message.
const TLS_REQUEST: u32 = 80_877_103;

/// A wire between a program and a database.
#[derive(Debug)]
pub struct Wire {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    breaks_behind: usize,
    statements: AtomicUsize,
    connections: AtomicUsize,
    broken: watch::Sender<bool>,
}

impl Wire {
    /// A wire that breaks behind the statement with this number, counted from 1 over all connections.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn breaking_behind(database: &TestDatabase, statement: usize) -> Self {
        let (server, url) = addresses(database.url());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            breaks_behind: statement,
            statements: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            broken: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self {
            url: url.replace("{port}", &port.to_string()),
            shared,
            accepting,
        }
    }

    /// The address of the database through this wire.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it broke.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        *self.shared.broken.borrow()
    }

    /// Waits until the server has ended every session of this wire, and answers how many statements there were.
    pub async fn settled(self) -> usize {
        self.shared.broken.send_replace(true);
        eventually("the server has ended the sessions", async || {
            self.shared.connections.load(Ordering::SeqCst) == 0
        })
        .await;
        self.shared.statements.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.broken.send_replace(true);
    }
}

/// Where the server of an address listens, and the address with `127.0.0.1:{port}` in its place.
fn addresses(url: &str) -> (SocketAddr, String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (place, path) = rest.split_once('/').unwrap();
    let (user, host) = place
        .rsplit_once('@')
        .map_or((String::new(), place), |(user, host)| {
            (format!("{user}@"), host)
        });
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:5432")
    };
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(&host).unwrap();
    let through = format!("{scheme}://{user}127.0.0.1:{{port}}/{path}");
    (found.next().unwrap(), through)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.broken.borrow() {
            continue;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        tokio::spawn(async move {
            // Whichever side ends the connection first is the end of both.
            let _ = connect(client, &shared).await;
            shared.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connect(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(shared.server).await?;
    // Messages go one by one; each would wait for the acknowledgement of the one before.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_server, mut to_server) = server.into_split();
    let (from_client, to_client) = client.into_split();
    let answers = tokio::spawn(answers(from_server, to_client, shared.broken.subscribe()));
    let _ = statements(from_client, &mut to_server, shared).await;
    to_server.shutdown().await?;
    // Ends when the server has ended the session.
    let _ = answers.await;
    Ok(())
}

/// Hands answers on until the wire breaks; then they are lost.
async fn answers(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    mut broken: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut to = Some(to);
    loop {
        let read = tokio::select! {
            biased;
            _ = broken.wait_for(|broken| *broken), if to.is_some() => {
                to = None;
                continue;
            }
            read = from.read(&mut buffer) => read?,
        };
        if read == 0 {
            return Ok(());
        }
        // Once more, because it may have broken while the answer was under way.
        if let Some(client) = to.as_mut().filter(|_| !*broken.borrow()) {
            client.write_all(&buffer[..read]).await?;
        }
    }
}

/// Hands messages to the server, and breaks the wire at its statement.
async fn statements(
    mut from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
) -> io::Result<()> {
    let mut broken = shared.broken.subscribe();
    while let Some(first) = untyped(&mut from).await? {
        let tls = first.get(4..8) == Some(&TLS_REQUEST.to_be_bytes());
        to.write_all(&first).await?;
        if !tls {
            break;
        }
    }
    loop {
        let message = tokio::select! {
            biased;
            _ = broken.wait_for(|broken| *broken) => return Ok(()),
            message = typed(&mut from) => message?,
        };
        let is_statement = matches!(message.first(), Some(b'Q' | b'E'));
        if is_statement
            && 1 + shared.statements.fetch_add(1, Ordering::SeqCst) == shared.breaks_behind
        {
            // First, so that no answer slips through.
            shared.broken.send_replace(true);
            return last(&message, &mut from, to).await;
        }
        to.write_all(&message).await?;
    }
}

/// The statement at which the wire breaks: with the message that has it carried out.
async fn last(message: &[u8], from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
    to.write_all(message).await?;
    let mut kind = message.first().copied();
    while kind != Some(b'Q') && kind != Some(b'S') {
        let next = typed(from).await?;
        to.write_all(&next).await?;
        kind = next.first().copied();
    }
    Ok(())
}

/// A message of the beginning: its length, and the rest.
async fn untyped(from: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    if from.read_exact(&mut head).await.is_err() {
        return Ok(None);
    }
    let mut message = vec![0; u32::from_be_bytes(head) as usize];
    message[..4].copy_from_slice(&head);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

/// A message with its kind.
async fn typed(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut message = vec![0; 1 + length];
    message[..5].copy_from_slice(&head);
    from.read_exact(&mut message[5..]).await?;
    Ok(message)
}
