//! Takes what is due from the outbox, sends it, and records how it went.
//!
//! Every API process and the worker run one; the database shares the work out, one message at a time for each target.
//! What is taken and not recorded, because the process died, is taken again when its lease has run out: at least once,
//! with the same id.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use podium_domain::notification::{Channel, Event};
use podium_storage::outbox::{self, Answer, Delivery, End, Limits, Outcome};
use podium_storage::{Database, StorageError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::email::Mail;
use crate::http::{Http, HttpError, Reply, TimeLimits};
use crate::settings::Settings;
use crate::verdict::Verdict;
use crate::{Links, escape, pagerduty, retry, slack, tls, webhook};

/// Messages that are being handed over at the same time.
const AT_ONCE: usize = 16;
/// Who has not answered by then gives the place to the next one and is waited for beside it, so that targets that hang
/// hold nobody up.
const PROMPT: Duration = Duration::from_millis(200);
/// Messages that may be on their way in all; each holds a connection.
const IN_ALL: usize = 512;
/// Longer than any try and its record take, so that nobody sends what is still on its way.
const LEASE: Duration = Duration::from_secs(60);
/// How often the outbox is looked at when nothing happens.
const POLL: Duration = Duration::from_secs(1);
/// Failures in a row after which a target is only probed.
const FAILURES: i32 = 5;
/// How often, at the default base.
const PROBE: Duration = Duration::from_secs(60);
/// Tries to record what was sent, and the pause between them.
const RECORDS: u32 = 5;
const RECORD_AGAIN: Duration = Duration::from_millis(500);
/// Least time that a lease leaves to record what a try came to.
const TO_RECORD: Duration = Duration::from_secs(10);
const _: () = {
    let limits = TimeLimits::DEFAULT;
    let least = LEASE.as_secs() - TO_RECORD.as_secs();
    assert!(limits.total.as_secs() <= least, "longer than the lease");
    assert!(limits.webhook.as_secs() <= least, "longer than the lease");
    assert!(limits.mail.as_secs() <= least, "longer than the lease");
};
// Eighty targets that hang at once keep the others waiting for a second.
const _: () = assert!(PROMPT.as_millis() * 80 <= 1_000 * AT_ONCE as u128);
/// How long the end waits for what is on its way.
const DRAIN: Duration = Duration::from_secs(5);

/// Why sending cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS cannot be set up.
    #[error("notifications cannot be sent over TLS: {0}")]
    Tls(String),
}

/// The clock and the dice, handed in.
#[derive(Clone)]
pub struct World {
    /// Now, in UTC.
    pub now: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    /// Uniform in [0, 1).
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
}

/// Sends notifications.
pub struct Sender {
    database: Database,
    settings: Settings,
    links: Links,
    world: World,
    http: Http,
    mail: Option<Mail>,
    wake: Notify,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// A sender; [`run`] makes it work. Call it inside of a runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn new(
        database: Database,
        settings: Settings,
        world: World,
    ) -> Result<Arc<Self>, StartError> {
        let roots = tls::roots(&settings.extra_roots);
        let http = Http::new(&roots, settings.allow_private, settings.time_limits)?;
        let mail = settings.smtp.as_ref();
        let mail = mail
            .map(|smtp| Mail::new(smtp, &roots, settings.time_limits))
            .transpose()?;
        Ok(Arc::new(Self {
            database,
            links: Links::new(settings.public_url.as_deref()),
            settings,
            world,
            http,
            mail,
            wake: Notify::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// Says that something was queued, so that it need not wait for the next look.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What is in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes at most `room` messages that are due.
    ///
    /// # Errors
    /// [`StorageError`] when the database does not answer.
    pub async fn claim(&self, room: usize) -> Result<Vec<Delivery>, StorageError> {
        outbox::claim(&self.database, room, self.settings.per_user, LEASE).await
    }

    /// Sends one message and says how it went; records nothing.
    pub async fn send(&self, delivery: &Delivery) -> Outcome {
        let (verdict, answer, wish) = match delivery.channel {
            Channel::Email => self.email(delivery).await,
            Channel::Slack => self.slack(delivery).await,
            Channel::Pagerduty => self.pagerduty(delivery).await,
            Channel::Webhook => self.webhook(delivery).await,
        };
        self.outcome(delivery, verdict, answer, wish)
    }

    /// Records how a try went. The database may be away for a moment; beyond that the lease runs out.
    pub async fn record(&self, delivery: &Delivery, outcome: &Outcome) {
        let limits = Limits {
            failures: FAILURES,
            probe_every: self.probe_every(),
        };
        for attempt in 1..=RECORDS {
            let now = (self.world.now)();
            match outbox::record(&self.database, delivery, outcome, limits, now).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(delivery = %delivery.id, attempt, error = %error.chain(),
                        "how a notification went could not be recorded");
                }
            }
            tokio::time::sleep(RECORD_AGAIN).await;
        }
    }

    /// Delivers within a place, and goes on outside of it when the target takes its time.
    async fn deliver_in(self: Arc<Self>, place: OwnedSemaphorePermit, delivery: Delivery) {
        let delivering = self.deliver(delivery);
        tokio::pin!(delivering);
        if tokio::time::timeout(PROMPT, &mut delivering).await.is_ok() {
            return;
        }
        drop(place);
        self.wake();
        delivering.await;
    }

    async fn deliver(&self, delivery: Delivery) {
        let outcome = self.send(&delivery).await;
        match &outcome {
            Outcome::Sent { .. } => {
                tracing::debug!(delivery = %delivery.id, channel = %delivery.channel, "notification sent");
            }
            Outcome::Retry { reason, .. } => {
                tracing::info!(delivery = %delivery.id, channel = %delivery.channel, attempt = delivery.attempt, reason,
                    "notification will be sent again");
            }
            Outcome::Dead { reason, .. } => {
                tracing::warn!(delivery = %delivery.id, channel = %delivery.channel, attempt = delivery.attempt, reason,
                    "notification given up");
            }
        }
        self.record(&delivery, &outcome).await;
    }

    fn outcome(
        &self,
        delivery: &Delivery,
        verdict: Verdict,
        answer: Answer,
        wish: Option<Duration>,
    ) -> Outcome {
        match verdict {
            Verdict::Arrived => Outcome::Sent {
                answer,
                gap: self.gap(delivery.channel),
            },
            Verdict::Never { reason, end } => Outcome::Dead {
                reason,
                answer,
                end,
                pause: None,
            },
            Verdict::Later {
                reason,
                at_least,
                pause,
            } => {
                let after = self.delay(delivery).map(|delay| delay.max(at_least));
                // The table is about this message: late in it the target's other messages must not wait for hours.
                let most = self.probe_every();
                let patience = at_least.max(after.map_or(most, |delay| delay.min(most)));
                let pause = pause.then(|| wish.unwrap_or(patience));
                match after {
                    // Whoever tries a configuration out wants to know now. The end of a trial is awaited by nobody.
                    Some(delay) if delivery.message.event != Event::Test || delivery.resolve => {
                        Outcome::Retry {
                            reason,
                            answer,
                            delay: delay.max(wish.unwrap_or_default()),
                            pause,
                        }
                    }
                    Some(_) => Outcome::Dead {
                        reason,
                        answer,
                        end: End::Message,
                        pause,
                    },
                    None => Outcome::Dead {
                        reason: format!("gave up after {} tries; last: {reason}", delivery.attempt),
                        answer,
                        end: End::Message,
                        pause,
                    },
                }
            }
        }
    }

    /// When the table says that a message is tried again, with jitter; `None` after the last try.
    fn delay(&self, delivery: &Delivery) -> Option<Duration> {
        let base = self.settings.retry_base;
        let delay = retry::delay(delivery.channel, delivery.attempt, base)?;
        Some(retry::jittered(delay, (self.world.chance)()))
    }

    fn probe_every(&self) -> Duration {
        retry::scaled(PROBE, self.settings.retry_base)
    }

    fn gap(&self, channel: Channel) -> Duration {
        let gap = match channel {
            Channel::Slack => slack::GAP,
            Channel::Pagerduty => pagerduty::GAP,
            Channel::Email | Channel::Webhook => Duration::ZERO,
        };
        retry::scaled(gap, self.settings.retry_base)
    }

    async fn slack(&self, delivery: &Delivery) -> Tried {
        let Some(url) = &delivery.target.webhook_url else {
            return unset("webhook URL");
        };
        let body = slack::render(&delivery.message, &self.links);
        let headers = [("content-type", "application/json; charset=utf-8".to_owned())];
        let total = self.settings.time_limits.total;
        let answer = self.http.post(url, &headers, body, total).await;
        self.tried(answer, &secrets(delivery), slack::judge)
    }

    async fn pagerduty(&self, delivery: &Delivery) -> Tried {
        let Some(key) = &delivery.target.routing_key else {
            return unset("routing key");
        };
        let body = if delivery.resolve {
            pagerduty::resolve(key, &delivery.dedup_key)
        } else {
            pagerduty::trigger(&delivery.message, key, &delivery.dedup_key, &self.links)
        };
        let headers = [("content-type", "application/json".to_owned())];
        let (url, total) = (
            &self.settings.pagerduty_url,
            self.settings.time_limits.total,
        );
        let answer = self.http.post(url, &headers, body, total).await;
        let base = self.settings.retry_base;
        self.tried(answer, &secrets(delivery), |reply| {
            pagerduty::judge(reply, base)
        })
    }

    async fn webhook(&self, delivery: &Delivery) -> Tried {
        let target = &delivery.target;
        let Some(url) = &target.webhook_url else {
            return unset("webhook URL");
        };
        let signers: Vec<&str> = [&target.api_key, &target.previous_api_key]
            .into_iter()
            .filter_map(|secret| secret.as_deref())
            .collect();
        if signers.is_empty() {
            return unset("signing secret");
        }
        let body = webhook::render(&delivery.message, &self.links);
        let headers = match webhook::headers(delivery.id, (self.world.now)(), &body, &signers) {
            Ok(headers) => headers,
            Err(bad) => {
                let verdict = Verdict::never(format!("the signing secret {bad}"), End::Message);
                return (verdict, Answer::default(), None);
            }
        };
        let total = self.settings.time_limits.webhook;
        let answer = self.http.post(url, &headers, body, total).await;
        self.tried(answer, &secrets(delivery), webhook::judge)
    }

    async fn email(&self, delivery: &Delivery) -> Tried {
        let Some(to) = &delivery.target.email_address else {
            return unset("e-mail address");
        };
        let Some(mail) = &self.mail else {
            let verdict = Verdict::never("e-mail is not set up: SMTP_URL is missing", End::Message);
            return (verdict, Answer::default(), None);
        };
        let (verdict, answer) = mail
            .send(delivery.id, to, &delivery.message, &self.links)
            .await;
        (verdict, answer, None)
    }

    fn tried(
        &self,
        answer: Result<Reply, HttpError>,
        secrets: &[&str],
        judge: impl FnOnce(&Reply) -> Verdict,
    ) -> Tried {
        match answer {
            Ok(reply) => {
                let said = Answer {
                    status: Some(reply.status),
                    text: escape::redacted(&reply.body, secrets),
                };
                let wish = retry::wish(reply.retry_after.as_deref(), (self.world.now)());
                (judge(&reply), said, wish)
            }
            Err(HttpError::Refused(refused)) => {
                let verdict = Verdict::never(format!("the address {refused}"), End::Message);
                (verdict, Answer::default(), None)
            }
            Err(error) => (Verdict::later(error.to_string()), Answer::default(), None),
        }
    }
}

/// What is known after a try, with what `Retry-After` asked for.
type Tried = (Verdict, Answer, Option<Duration>);

fn unset(what: &str) -> Tried {
    let verdict = Verdict::never(format!("the configuration has no {what}"), End::Message);
    (verdict, Answer::default(), None)
}

/// What no log may show of an answer that repeats the request: the address, its path, and every part of it that is long
/// enough to be a token.
fn secrets(delivery: &Delivery) -> Vec<&str> {
    const TOKEN: usize = 8;
    let target = &delivery.target;
    let url = target.webhook_url.as_deref();
    let path = url.and_then(|url| {
        let behind = url.split_once("://")?.1;
        behind.find('/').and_then(|at| behind.get(at..))
    });
    let parts = path
        .unwrap_or_default()
        .split(['/', '?', '&', '=', '#'])
        .filter(|part| part.len() >= TOKEN);
    [
        url,
        path,
        target.api_key.as_deref(),
        target.previous_api_key.as_deref(),
        target.routing_key.as_deref(),
    ]
    .into_iter()
    .flatten()
    .chain(parts)
    .collect()
}

/// Sends what is due until `stop` becomes true or is dropped; then waits a moment for what is on its way.
pub async fn run(sender: Arc<Sender>, mut stop: watch::Receiver<bool>) {
    let mut on_their_way = JoinSet::new();
    while !*stop.borrow() {
        take(&sender, &mut on_their_way).await;
        tokio::select! {
            changed = stop.changed() => if changed.is_err() { break },
            // A target is free again, and may have more.
            Some(_) = on_their_way.join_next() => {}
            () = sender.wake.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    let drained = tokio::time::timeout(DRAIN, async {
        while on_their_way.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!("notifications on their way were cut off; they will be sent again");
    }
}

async fn take(sender: &Arc<Sender>, on_their_way: &mut JoinSet<()>) {
    // What was sent gives its place back when it is recorded; what is still to be joined must not count.
    while on_their_way.try_join_next().is_some() {}
    let room = sender.places.available_permits();
    let room = room.min(IN_ALL.saturating_sub(on_their_way.len()));
    if room == 0 {
        return;
    }
    match sender.claim(room).await {
        Ok(deliveries) => {
            for delivery in deliveries {
                // Nobody else takes places, so there is one for each delivery that was asked for.
                let Ok(place) = sender.places.clone().try_acquire_owned() else {
                    return;
                };
                on_their_way.spawn(sender.clone().deliver_in(place, delivery));
            }
        }
        Err(error) => {
            tracing::debug!(error = %error.chain(), "the outbox cannot be read; will try again");
        }
    }
}
