//! Grouped writes: many requests share one statement and one commit.
//!
//! Callers put jobs into a bounded queue; a few writers take what is there and run it. While one writer waits for
//! its commit another fills the next group, so groups grow with the load by themselves and nobody waits for
//! a timer when the database is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::StorageError;

/// Runs one group of jobs and answers each.
pub trait RunGroup: Send + Sync + 'static {
    /// What a caller hands in.
    type Job: Send + 'static;
    /// What a caller gets back.
    type Answer: Send + 'static;

    /// Runs all jobs. Must return one answer for each, in order.
    fn run(&self, jobs: Vec<Self::Job>) -> impl Future<Output = Vec<Self::Answer>> + Send;

    /// Rows that the job brings, for the bound of queue and group.
    fn rows(job: &Self::Job) -> usize;
}

struct Queued<G: RunGroup> {
    job: G::Job,
    answer: oneshot::Sender<G::Answer>,
    room: OwnedSemaphorePermit,
}

/// A bounded queue with its writers. Dropping it lets the writers finish what was accepted.
pub struct Batcher<G: RunGroup> {
    queue: mpsc::UnboundedSender<Queued<G>>,
    room: Arc<Semaphore>,
    capacity_rows: usize,
    waiting: Arc<AtomicUsize>,
}

/// Sizes of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Writers that run groups at the same time.
    pub writers: usize,
    /// Rows that may wait or be under way; more are refused.
    pub capacity_rows: usize,
    /// Rows of one group (a single larger job still goes through alone).
    pub group_rows: usize,
}

impl<G: RunGroup> Batcher<G> {
    /// Starts the writers on the current runtime.
    pub fn start(group: G, sizes: Sizes) -> (Self, Vec<JoinHandle<()>>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let group = Arc::new(group);
        let waiting = Arc::new(AtomicUsize::new(0));
        let writers = (0..sizes.writers)
            .map(|_| {
                tokio::spawn(write(
                    receiver.clone(),
                    group.clone(),
                    sizes.group_rows,
                    waiting.clone(),
                ))
            })
            .collect();
        let room = Arc::new(Semaphore::new(sizes.capacity_rows));
        (
            Self {
                queue,
                room,
                capacity_rows: sizes.capacity_rows,
                waiting,
            },
            writers,
        )
    }

    /// Queues a job. The answer comes after the commit; dropping the receiver does not undo the job.
    ///
    /// # Errors
    /// [`StorageError::QueueFull`] when the rows do not fit; nothing was queued then.
    pub fn submit(&self, job: G::Job) -> Result<oneshot::Receiver<G::Answer>, StorageError> {
        let rows = u32::try_from(G::rows(&job)).map_err(|_| StorageError::QueueFull)?;
        let room = self
            .room
            .clone()
            .try_acquire_many_owned(rows)
            .map_err(|_| StorageError::QueueFull)?;
        let (answer, receiver) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue
            .send(Queued { job, answer, room })
            .map_err(|_| StorageError::QueueFull)?;
        Ok(receiver)
    }

    /// Waits until every accepted job is done.
    pub async fn drain(&self) {
        // All rows of room are free only when nothing waits and nothing is under way.
        if let Ok(all) = u32::try_from(self.capacity_rows) {
            let _ = self.room.acquire_many(all).await;
        }
    }

    /// Jobs that wait for a writer.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

async fn write<G: RunGroup>(
    queue: Arc<Mutex<mpsc::UnboundedReceiver<Queued<G>>>>,
    group: Arc<G>,
    group_rows: usize,
    waiting: Arc<AtomicUsize>,
) {
    loop {
        let Some(taken) = take(&mut *queue.lock().await, group_rows, &waiting, G::rows).await
        else {
            return;
        };
        let (mut jobs, mut answers, mut room) = (Vec::new(), Vec::new(), Vec::new());
        for queued in taken {
            jobs.push(queued.job);
            answers.push(queued.answer);
            room.push(queued.room);
        }
        for (answer, outcome) in answers.into_iter().zip(group.run(jobs).await) {
            // The caller may have gone away; its rows are committed all the same.
            let _ = answer.send(outcome);
        }
    }
}

/// Waits for one job and takes those behind it until the group is full. `None` when the queue is closed and empty.
async fn take<G: RunGroup>(
    queue: &mut mpsc::UnboundedReceiver<Queued<G>>,
    group_rows: usize,
    waiting: &AtomicUsize,
    rows_of: fn(&G::Job) -> usize,
) -> Option<Vec<Queued<G>>> {
    let first = queue.recv().await?;
    let mut rows = rows_of(&first.job);
    let mut taken = vec![first];
    while rows < group_rows {
        let Ok(next) = queue.try_recv() else { break };
        rows += rows_of(&next.job);
        taken.push(next);
    }
    waiting.fetch_sub(taken.len(), Ordering::Relaxed);
    Some(taken)
}
