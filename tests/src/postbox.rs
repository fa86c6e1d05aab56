//! An SMTP server that takes mail, and misbehaves when it is told to. As much of RFC 5321 as a client of ours needs.

use std::sync::{Arc, Mutex};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;

/// What differs from a friendly server on an unprotected line.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// The reply to a command that begins like this, instead of the usual one, each time; `.` is the end of a mail.
    pub replies: Vec<(&'static str, &'static str)>,
    /// Whether the connection is closed after the final dot, before the reply.
    pub drops_after_data: bool,
    /// Whether the first mail gets no reply after its final dot, and the connection stays open.
    pub hangs_once: bool,
    /// Whether no mail ever gets one.
    pub hangs: bool,
    /// How the line is protected.
    pub tls: Protection,
    /// Its certificate; without one it makes one for `localhost` that is its own authority.
    pub identity: Option<Identity>,
}

/// How a line is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// Not at all, and STARTTLS is not offered.
    #[default]
    None,
    /// STARTTLS is offered.
    StartTls,
    /// From the first byte.
    Tls,
}

/// A running server.
#[derive(Debug)]
pub struct Postbox {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its certificate, for clients who trust it alone.
    pub root: CertificateDer<'static>,
    mails: Arc<Mutex<Vec<String>>>,
    commands: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Postbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Postbox {
    /// Starts a server.
    ///
    /// # Panics
    /// When there is no free port, or no certificate can be made.
    pub async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let identity = manners.identity.clone();
        let identity = identity.unwrap_or_else(|| Identity::self_signed(&["localhost"]));
        let (mails, commands) = (Arc::default(), Arc::default());
        let session = Session {
            manners,
            mails: Arc::clone(&mails),
            commands: Arc::clone(&commands),
            acceptor: identity.acceptor(),
        };
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(session.clone().serve(stream));
            }
        });
        Self {
            port,
            root: identity.root(),
            mails,
            commands,
            accepting,
        }
    }

    /// The mails so far, as they came.
    ///
    /// # Panics
    /// Never: nobody panics with the list in hand.
    #[must_use]
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    /// The commands so far.
    ///
    /// # Panics
    /// Never: nobody panics with the list in hand.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }
}

#[derive(Clone)]
struct Session {
    manners: Manners,
    mails: Arc<Mutex<Vec<String>>>,
    commands: Arc<Mutex<Vec<String>>>,
    acceptor: TlsAcceptor,
}

impl Session {
    async fn serve(self, stream: tokio::net::TcpStream) {
        if self.manners.tls == Protection::Tls {
            if let Ok(stream) = self.acceptor.accept(stream).await {
                self.talk(BufReader::new(stream), true).await;
            }
            return;
        }
        if let Some(plain) = self.talk(BufReader::new(stream), true).await
            && let Ok(stream) = self.acceptor.accept(plain.into_inner()).await
        {
            self.talk(BufReader::new(stream), false).await;
        }
    }

    /// Talks until the end, or until the client wants TLS: then the line is handed back.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut line: BufReader<S>,
        greet: bool,
    ) -> Option<BufReader<S>> {
        if greet {
            line.write_all(b"220 postbox ESMTP\r\n").await.ok()?;
        }
        loop {
            let command = read_line(&mut line).await?;
            let word = command.split([' ', ':']).next()?.to_ascii_uppercase();
            self.commands.lock().unwrap().push(command);
            let odd = self.manners.replies.iter().find(|(verb, _)| *verb == word);
            let reply = match (odd, word.as_str()) {
                (Some((_, reply)), _) => format!("{reply}\r\n"),
                (None, "EHLO") => self.hello(greet),
                (None, "STARTTLS") => {
                    line.write_all(b"220 go ahead\r\n").await.ok()?;
                    return Some(line);
                }
                (None, "DATA") => {
                    line.write_all(b"354 end with a dot\r\n").await.ok()?;
                    self.take(&mut line).await?
                }
                (None, "AUTH") => "235 welcome\r\n".into(),
                (None, "QUIT") => {
                    let _ = line.write_all(b"221 bye\r\n").await;
                    return None;
                }
                _ => "250 ok\r\n".into(),
            };
            line.write_all(reply.as_bytes()).await.ok()?;
        }
    }

    fn hello(&self, first: bool) -> String {
        let offers_tls = self.manners.tls == Protection::StartTls && first;
        let starttls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
        format!("250-postbox\r\n{starttls}250 AUTH PLAIN LOGIN\r\n")
    }

    async fn take<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        line: &mut BufReader<S>,
    ) -> Option<String> {
        let mut mail = String::new();
        loop {
            let text = read_line(line).await?;
            if text == "." {
                break;
            }
            mail.push_str(text.strip_prefix('.').unwrap_or(&text));
            mail.push_str("\r\n");
        }
        let mails = {
            let mut mails = self.mails.lock().unwrap();
            mails.push(mail);
            mails.len()
        };
        if self.manners.hangs || self.manners.hangs_once && mails == 1 {
            std::future::pending::<()>().await;
        }
        if let Some((_, reply)) = self.manners.replies.iter().find(|(verb, _)| *verb == ".") {
            return Some(format!("{reply}\r\n"));
        }
        (!self.manners.drops_after_data).then(|| "250 2.0.0 queued as 42\r\n".into())
    }
}

async fn read_line<S: AsyncRead + Unpin>(line: &mut BufReader<S>) -> Option<String> {
    let mut text = String::new();
    let read = line.read_line(&mut text).await.ok()?;
    (read > 0).then(|| text.trim_end_matches(['\r', '\n']).to_owned())
}
