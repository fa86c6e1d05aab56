//! A small HTTP client: set-up calls, timed single requests, and load at a steady rate beside a measurement.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::error::BenchError;

/// One connection that is kept alive.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    authority: String,
    authorization: Option<String>,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects; `token` goes along with every request.
    ///
    /// # Errors
    /// [`BenchError::Http`].
    pub(crate) async fn open(authority: &str, token: Option<&str>) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(authority)
            .await
            .map_err(BenchError::Http)?;
        stream.set_nodelay(true).map_err(BenchError::Http)?;
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        Ok(Self {
            stream,
            authority: authority.to_owned(),
            authorization,
            buffer: Vec::new(),
        })
    }

    /// Sends a request with a JSON body and reads the answer.
    ///
    /// # Errors
    /// [`BenchError::Http`].
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Answer, BenchError> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            self.authorization.as_deref().unwrap_or_default(),
            body.len()
        );
        self.stream
            .write_all(request.as_bytes())
            .await
            .map_err(BenchError::Http)?;
        self.read().await.map_err(BenchError::Http)
    }

    /// As [`Connection::send`], and the status must be 2xx.
    ///
    /// # Errors
    /// [`BenchError::Answer`] otherwise.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Vec<u8>, BenchError> {
        let answer = self.send(method, path, body).await?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let told = String::from_utf8_lossy(&answer.body)
            .chars()
            .take(300)
            .collect();
        Err(BenchError::Answer {
            what: format!("{method} {path}"),
            status: answer.status,
            body: told,
        })
    }

    async fn read(&mut self) -> std::io::Result<Answer> {
        self.buffer.clear();
        let cut = || {
            std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the answer is cut off or has no length",
            )
        };
        let (head, status, length) = loop {
            if let Some(found) = read_head(&self.buffer) {
                break found;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(cut());
            }
        };
        let end = head + length.ok_or_else(cut)?;
        while self.buffer.len() < end {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(cut());
            }
        }
        Ok(Answer {
            status,
            body: self.buffer.get(head..end).unwrap_or_default().to_vec(),
        })
    }
}

/// Where the body begins, the status, and the length of the body; `None` while the head is not complete.
fn read_head(bytes: &[u8]) -> Option<(usize, u16, Option<usize>)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(bytes.get(..end)?);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    Some((end, status, length))
}

/// A steady load beside a measurement. Every answer must be 2xx.
pub(crate) struct Steady {
    tasks: Vec<tokio::task::JoinHandle<Result<u64, BenchError>>>,
    stop: tokio::sync::watch::Sender<bool>,
    started: Instant,
}

impl Steady {
    /// Sends `rate` requests a second over `connections`, with the bodies that `body` makes of running numbers.
    pub(crate) fn start(
        authority: &str,
        path: &'static str,
        connections: u32,
        rate: f64,
        body: impl Fn(u64) -> String + Clone + Send + 'static,
    ) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let pause = Duration::from_secs_f64(f64::from(connections) / rate);
        let tasks = (0..connections)
            .map(|at| {
                let (authority, body, stopped) =
                    (authority.to_owned(), body.clone(), stopped.clone());
                let first = pause.mul_f64(f64::from(at) / f64::from(connections));
                tokio::spawn(async move {
                    let numbers = (u64::from(at)..).step_by(connections as usize);
                    pace(&authority, path, pause, first, numbers.map(body), &stopped).await
                })
            })
            .collect();
        Self {
            tasks,
            stop,
            started: Instant::now(),
        }
    }

    /// Ends the load and tells the rate that was reached.
    ///
    /// # Errors
    /// [`BenchError::Answer`] when an answer was not 2xx.
    pub(crate) async fn finish(self) -> Result<f64, BenchError> {
        let seconds = self.started.elapsed().as_secs_f64();
        // Nobody listens when all tasks have failed; their errors come next.
        let _ = self.stop.send(true);
        let mut sent = 0;
        for task in self.tasks {
            sent += task.await??;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds of load")]
        Ok(sent as f64 / seconds)
    }
}

async fn pace(
    authority: &str,
    path: &str,
    pause: Duration,
    first: Duration,
    bodies: impl Iterator<Item = String>,
    stopped: &tokio::sync::watch::Receiver<bool>,
) -> Result<u64, BenchError> {
    let mut connection = Connection::open(authority, None).await?;
    let mut ticks = tokio::time::interval_at(Instant::now() + first, pause);
    let mut sent = 0;
    for body in bodies {
        ticks.tick().await;
        if *stopped.borrow() {
            break;
        }
        connection.ask("POST", path, &body).await?;
        sent += 1;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::read_head;

    #[test]
    fn an_answer_is_read_only_when_its_head_is_complete() {
        let answer = b"HTTP/1.1 404 Not Found\r\nCONTENT-LENGTH: 12\r\nx: y\r\n\r\nabc";
        assert_eq!(read_head(answer), Some((answer.len() - 3, 404, Some(12))));
        assert_eq!(read_head(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n"), None);
        assert_eq!(
            read_head(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Some((27, 204, None))
        );
    }
}
