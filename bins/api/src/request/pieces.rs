//! A body that is read piece by piece.

use std::io::Write;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::web::Bytes;
use flate2::write::GzDecoder;
use futures_util::Stream;
use tokio::time::{Instant, timeout};

use super::{BODY_TIME, no_gzip, too_large, too_slow, unreadable};
use crate::problem::ApiError;

/// Compressed bytes that are inflated at a time: a thousand times as many may come out.
const SIP: usize = 1024;

/// A body of which only a piece is in memory.
pub struct Pieces {
    payload: Payload,
    inflater: Option<GzDecoder<Vec<u8>>>,
    /// Compressed bytes that have arrived and were not inflated yet.
    waiting: Bytes,
    /// Bytes that have arrived.
    arrived: usize,
    /// Bytes that were handed on, so after decompression.
    handed_on: usize,
    limit: usize,
    until: Instant,
}

impl Pieces {
    pub(super) fn new(payload: Payload, gzip: bool, limit: usize, until: Instant) -> Self {
        Self {
            payload,
            inflater: gzip.then(|| GzDecoder::new(Vec::new())),
            waiting: Bytes::new(),
            arrived: 0,
            handed_on: 0,
            limit,
            until,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// 413 when more has arrived, or come out, than the limit; 408 when the client is too slow; 400 for what is no gzip.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if !self.waiting.is_empty() {
                let inflated = self.inflate()?;
                if !inflated.is_empty() {
                    return self.hand_on(inflated).map(Some);
                }
                continue;
            }
            match self.arrive().await? {
                Some(chunk) if self.inflater.is_some() => self.waiting = chunk,
                Some(chunk) => return self.hand_on(chunk).map(Some),
                None => return self.end(),
            }
        }
    }

    async fn arrive(&mut self) -> Result<Option<Bytes>, ApiError> {
        let left = self.until.saturating_duration_since(Instant::now());
        let next = std::future::poll_fn(|cx| Pin::new(&mut self.payload).poll_next(cx));
        let Some(chunk) = timeout(left.min(BODY_TIME), next)
            .await
            .map_err(|_| too_slow())?
        else {
            return Ok(None);
        };
        let chunk = chunk.map_err(|_| unreadable())?;
        self.arrived += chunk.len();
        if self.arrived > self.limit {
            return Err(too_large(self.limit));
        }
        Ok(Some(chunk))
    }

    fn inflate(&mut self) -> Result<Bytes, ApiError> {
        let sip = self.waiting.split_to(SIP.min(self.waiting.len()));
        let Some(inflater) = &mut self.inflater else {
            return Ok(sip);
        };
        inflater.write_all(&sip).map_err(|_| no_gzip())?;
        Ok(std::mem::take(inflater.get_mut()).into())
    }

    /// What the end of the compressed body lets out, once.
    fn end(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Some(inflater) = self.inflater.take() else {
            return Ok(None);
        };
        let rest = inflater.finish().map_err(|_| no_gzip())?;
        self.hand_on(rest.into()).map(Some)
    }

    fn hand_on(&mut self, piece: Bytes) -> Result<Bytes, ApiError> {
        self.handed_on += piece.len();
        if self.handed_on > self.limit {
            Err(too_large(self.limit))
        } else {
            Ok(piece)
        }
    }
}
