//! An HTTP server that takes notifications, and misbehaves when it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::certificates::Identity;

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its path.
    pub path: String,
    /// Its headers, with names in small letters.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Received {
    /// A header; empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Answers with this status, these header lines and this body.
    Answer(u16, &'static str, &'static str),
    /// Reads the request and never answers.
    Hang,
    /// Sends the head of an answer of this status and never its body.
    HangAfterHead(u16),
    /// Sends the head of an answer of this status and half of its body, `o` of `ok`, and closes.
    BreakAfterHead(u16),
    /// Resets the connection.
    Reset,
    /// Sends half of the first line of an answer and closes.
    Half,
    /// Sends a body without an end.
    Endless,
    /// Sends an answer, a byte at a time, slower than anybody waits.
    Drip,
}

impl Reaction {
    /// What Slack, PagerDuty and webhooks take for success, by path.
    #[must_use]
    pub fn success(path: &str) -> Self {
        match path {
            "/slack" => Self::Answer(200, "", "ok"),
            "/pagerduty" => Self::Answer(202, "", r#"{"status":"success"}"#),
            _ => Self::Answer(204, "", ""),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Sink {
    /// `http://127.0.0.1:port`
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Sink {
    /// A server that reacts to each request as `react` says, given how many came before it.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(
        react: impl Fn(&Received, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, react) = (received.clone(), Arc::new(react));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), react.clone()));
            }
        });
        Self {
            url,
            received,
            accepting,
        }
    }

    /// A server that takes everything.
    pub async fn friendly() -> Self {
        Self::start(|request, _| Reaction::success(&request.path)).await
    }

    /// What arrived so far.
    ///
    /// # Panics
    /// Never: nobody panics with the list in hand.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

/// A server in front of a [`Sink`] that speaks TLS.
#[derive(Debug)]
pub struct Front {
    /// `https://localhost:port`
    pub url: String,
    accepting: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Front {
    /// A server with this certificate that hands what it hears to `sink`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(identity: &Identity, sink: &Sink) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let behind = sink.url.trim_start_matches("http://").to_owned();
        let acceptor = identity.acceptor();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    // A client that does not trust the certificate goes away.
                    let Ok(mut client) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self {
            url: format!("https://localhost:{port}"),
            accepting,
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<Received>>>,
    react: Arc<impl Fn(&Received, usize) -> Reaction>,
) {
    while let Some(request) = read(&mut stream).await {
        let reaction = {
            let mut log = log.lock().unwrap();
            let reaction = react(&request, log.len());
            log.push(request);
            reaction
        };
        if perform(&mut stream, reaction).await.is_none() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        path,
        headers,
        body,
    })
}

/// `None` when the connection is over.
async fn perform(stream: &mut TcpStream, reaction: Reaction) -> Option<()> {
    const FOR_EVER: Duration = Duration::from_secs(3_600);
    match reaction {
        Reaction::Answer(status, headers, body) => {
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.ok()
        }
        Reaction::Hang => {
            tokio::time::sleep(FOR_EVER).await;
            None
        }
        Reaction::HangAfterHead(status) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            tokio::time::sleep(FOR_EVER).await;
            None
        }
        Reaction::BreakAfterHead(status) => {
            let half = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\no");
            stream.write_all(half.as_bytes()).await.ok()?;
            None
        }
        Reaction::Reset => {
            stream.set_zero_linger().ok()?;
            None
        }
        Reaction::Half => {
            stream.write_all(b"HTTP/1.1 20").await.ok()?;
            None
        }
        Reaction::Endless => {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.ok()?;
            let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            None
        }
        Reaction::Drip => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" {
                stream.write_all(&[*byte]).await.ok()?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            None
        }
    }
}
