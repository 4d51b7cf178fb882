//! Jobs that queued while the ones before them were being committed are carried out together.
//!
//! A lane carries out one batch at a time: what has come meanwhile, and never waits for more. So a job that
//! comes alone starts at once, and under load one commit serves many (group commit; DeWitt et al., "Implementation
//! Techniques for Main Memory Database Systems", 1984). Jobs with the same key (the first SKU of a reservation)
//! take the same lane and never wait for each other's row locks.
//!
//! Deliberately without a say in how a batch keeps its jobs apart: that is up to whoever carries it out.

use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Carries out a batch: one answer a job, in their order.
pub type CarryOut<J, A> = Arc<dyn Fn(Vec<J>) -> BoxFuture<'static, Vec<A>> + Send + Sync>;

/// Why a job was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Too many wait already.
    #[error("too many wait for the same")]
    Full,
    /// The store is closing, or the batch has panicked; nothing is known of the job.
    #[error("the storage is closing")]
    Closed,
}

/// How much may wait, and be taken together.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches at the same time.
    pub lanes: usize,
    /// Jobs that wait in each lane.
    pub queue_max: usize,
    /// Jobs in a batch.
    pub batch_max: usize,
}

/// Lanes of jobs.
pub struct Group<J, A> {
    lanes: Vec<mpsc::Sender<Queued<J, A>>>,
    closing: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

struct Queued<J, A> {
    job: J,
    answer: oneshot::Sender<A>,
}

impl<J: Send + 'static, A: Send + 'static> Group<J, A> {
    /// Starts the lanes.
    pub fn start(limits: Limits, carry_out: CarryOut<J, A>) -> Self {
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let start = |_| {
            let (sender, queue) = mpsc::channel(limits.queue_max.max(1));
            let lane = lane(
                queue,
                limits.batch_max.max(1),
                carry_out.clone(),
                closing.clone(),
            );
            tasks.spawn(mesh::carry(lane));
            sender
        };
        let lanes = (0..limits.lanes.max(1)).map(start).collect();
        Self {
            lanes,
            closing,
            tasks: Mutex::new(tasks),
        }
    }

    /// Queues a job and waits for its answer. A job whose caller has gone before its batch began is left out.
    pub async fn join(&self, key: impl Hash, job: J) -> Result<A, Refused> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lanes = self.lanes.len() as u64;
        let lane = usize::try_from(hasher.finish() % lanes).expect("less than the number of lanes");
        let (answer, answered) = oneshot::channel();
        self.lanes[lane]
            .try_send(Queued { job, answer })
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => Refused::Full,
                mpsc::error::TrySendError::Closed(_) => Refused::Closed,
            })?;
        answered.await.map_err(|_| Refused::Closed)
    }

    /// Takes no more jobs, and waits until those that queue are done.
    pub async fn close(&self) {
        self.closing.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

async fn lane<J: Send, A: Send>(
    mut queue: mpsc::Receiver<Queued<J, A>>,
    batch_max: usize,
    carry_out: CarryOut<J, A>,
    closing: CancellationToken,
) {
    let mut batch = Vec::with_capacity(batch_max);
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled(), if !queue.is_closed() => {
                queue.close(); // What is in it is still carried out.
                continue;
            }
            taken = queue.recv_many(&mut batch, batch_max) => {
                if taken == 0 {
                    return;
                }
            }
        }
        batch.retain(|queued: &Queued<J, A>| !queued.answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let (jobs, answers): (Vec<J>, Vec<_>) = batch
            .drain(..)
            .map(|queued| (queued.job, queued.answer))
            .unzip();
        // A panic ends its batch and not its lane; it was reported where it happened.
        if let Ok(outcomes) = AssertUnwindSafe(carry_out(jobs)).catch_unwind().await {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _caller_gone = answer.send(outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use tokio::sync::Semaphore;

    use super::*;

    type Batches = Arc<StdMutex<Vec<Vec<u32>>>>;

    /// A group that doubles numbers, a batch a permit, and notes the batches.
    fn doubling(limits: Limits) -> (Arc<Group<u32, u32>>, Arc<Semaphore>, Batches) {
        let permits = Arc::new(Semaphore::new(0));
        let batches = Batches::default();
        let carry_out: CarryOut<u32, u32> = Arc::new({
            let (permits, batches) = (permits.clone(), batches.clone());
            move |jobs| {
                let (permits, batches) = (permits.clone(), batches.clone());
                Box::pin(async move {
                    batches.lock().unwrap().push(jobs.clone());
                    permits.acquire().await.unwrap().forget();
                    jobs.into_iter().map(|job| 2 * job).collect()
                })
            }
        });
        (Arc::new(Group::start(limits, carry_out)), permits, batches)
    }

    const LIMITS: Limits = Limits {
        lanes: 1,
        queue_max: 4,
        batch_max: 3,
    };

    fn join(
        group: &Arc<Group<u32, u32>>,
        job: u32,
    ) -> tokio::task::JoinHandle<Result<u32, Refused>> {
        let group = group.clone();
        mesh::spawn(async move { group.join("key", job).await })
    }

    /// Lets every task go as far as it can (the tests' runtime has one thread).
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_queues_during_a_batch_is_the_next_batch() {
        let (group, permits, batches) = doubling(LIMITS);
        let first = join(&group, 1);
        settle().await;
        let others: Vec<_> = (2..=5).map(|job| join(&group, job)).collect();
        settle().await;
        assert_eq!(*batches.lock().unwrap(), [vec![1]], "it did not linger");
        permits.add_permits(9);
        assert_eq!(first.await.unwrap().unwrap(), 2);
        for (other, job) in others.into_iter().zip(2..) {
            assert_eq!(other.await.unwrap().unwrap(), 2 * job);
        }
        assert_eq!(
            *batches.lock().unwrap(),
            [vec![1], vec![2, 3, 4], vec![5]],
            "and no batch is larger than it may be"
        );
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_caller_that_is_gone_is_left_out() {
        let (group, permits, batches) = doubling(LIMITS);
        let first = join(&group, 1);
        settle().await;
        let mut waiting: Vec<_> = (2..=5).map(|job| join(&group, job)).collect();
        settle().await;
        assert!(matches!(join(&group, 6).await.unwrap(), Err(Refused::Full)));
        waiting.remove(1).abort();
        settle().await;
        permits.add_permits(9);
        first.await.unwrap().unwrap();
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
        assert_eq!(*batches.lock().unwrap(), [vec![1], vec![2, 4], vec![5]]);
    }

    #[tokio::test]
    async fn closing_carries_out_what_queues_and_refuses_the_rest() {
        let (group, permits, _) = doubling(LIMITS);
        let jobs: Vec<_> = (1..=4).map(|job| join(&group, job)).collect();
        settle().await;
        permits.add_permits(9);
        group.close().await;
        for job in jobs {
            job.await.unwrap().unwrap();
        }
        assert!(matches!(
            join(&group, 5).await.unwrap(),
            Err(Refused::Closed)
        ));
    }
}
