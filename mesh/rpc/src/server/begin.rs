//! Begins the calls of a connection on the connection's own task: most calls of a service that is up to its load are
//! answered without a wait, and then a task of their own costs more than it gives. It is pushed to another processor,
//! which wakes up for it and meets this one at the connection's lock; and their answers leave one by one, each with a
//! system call of its own, where these leave together.
//!
//! Not all that came are begun before an answer leaves, but half of them, then half of the rest: the caller has
//! something to do while this side works. (One at a time is as fast with eight calls in flight and slower with 64; all
//! at once leaves either side idle in turn.)
//!
//! A call that waits goes on in a task of its own. One that does not wait and takes long holds up those behind it: where
//! calls of late took longer than [`PATIENCE`] on the average before they waited, each has a task from the start, as
//! with hyper. A handler must not block its thread until more of its own request comes: nobody would read it.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::task::coop::poll_proceed;
use tokio_util::task::TaskTracker;

use crate::client::clock::nanos;

/// How many calls may have come in and not be begun: more are left in the connection.
const CAME_MAX: usize = 32;
/// How long calls may keep the processor, on the average, to be begun here: some times what a task costs.
const PATIENCE: Duration = Duration::from_micros(50);
/// The weight of one call among those before it: a part of so many.
const WEIGHT: u64 = 8;

/// The calls of a connection that have come in and are not begun.
pub(super) struct Begin<T> {
    came: Vec<T>,
    keeps: Arc<Keeps>,
}

impl<T> Begin<T> {
    pub(super) fn new() -> Self {
        Self {
            came: Vec::new(),
            keeps: Arc::default(),
        }
    }

    pub(super) fn add(&mut self, call: T) {
        self.came.push(call);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.came.len() < CAME_MAX
    }

    /// Begins half of them, in the order in which they came; fewer when the task has worked for long enough by tokio's
    /// budget. What waits goes on among `tasks`.
    pub(super) fn half<F>(&mut self, tasks: &TaskTracker, mut serve: impl FnMut(T) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut half = 0;
        while half < self.came.len().div_ceil(2) && may_go_on() {
            half += 1;
        }
        for call in self.came.drain(..half) {
            let mut call = Box::pin(serve(call));
            if self.keeps.long() {
                tasks.spawn(measured(call, self.keeps.clone()));
                continue;
            }
            let began = Instant::now();
            // A panic outside of the handler ends this call only, as it does in a task.
            let over = AssertUnwindSafe(&mut call).catch_unwind().now_or_never();
            self.keeps.record(began.elapsed());
            if over.is_none() {
                tasks.spawn(call);
            }
        }
    }
}

/// Takes a call's part of the budget of the task that runs.
fn may_go_on() -> bool {
    match poll_proceed(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(part) => {
            part.made_progress();
            true
        }
        Poll::Pending => false,
    }
}

/// Runs a call, and records how long it keeps the processor before it waits.
async fn measured<F: Future<Output = ()>>(mut call: Pin<Box<F>>, keeps: Arc<Keeps>) {
    let first = std::future::poll_fn(|cx| {
        let began = Instant::now();
        let polled = call.as_mut().poll(cx);
        keeps.record(began.elapsed());
        Poll::Ready(polled)
    });
    if first.await.is_pending() {
        call.await;
    }
}

/// How long calls keep the processor before they wait, in nanoseconds: an exponentially weighted mean. What two of them
/// record at the same moment may be one of the two.
#[derive(Default)]
struct Keeps(AtomicU64);

impl Keeps {
    fn record(&self, kept: Duration) {
        let mean = self.0.load(Relaxed);
        self.0
            .store(mean - mean / WEIGHT + nanos(kept) / WEIGHT, Relaxed);
    }

    fn long(&self) -> bool {
        self.0.load(Relaxed) > nanos(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        hint::spin_loop,
    };

    use futures_util::future::lazy;

    use super::*;

    fn begin_all<F>(begin: &mut Begin<F>, tasks: &TaskTracker)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while !begin.is_empty() {
            begin.half(tasks, |call| call);
        }
    }

    /// Keeps the processor for so long.
    fn keeping(time: Duration) -> impl Future<Output = ()> + Send {
        lazy(move |_| {
            let until = Instant::now() + time;
            while Instant::now() < until {
                spin_loop();
            }
        })
    }

    #[tokio::test]
    async fn what_need_not_wait_has_no_task_and_what_waits_has_one() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        begin.add(ready(()).boxed());
        begin.add(pending().boxed());
        begin.add(ready(()).boxed());
        begin_all(&mut begin, &tasks);
        assert!(begin.is_empty());
        assert_eq!(tasks.len(), 1);
    }

    #[tokio::test]
    async fn half_of_what_is_left_is_begun_at_a_time() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        for call in 0..9 {
            begin.add(call);
        }
        let mut begun = Vec::new();
        for expected in [5, 7, 8, 9] {
            begin.half(&tasks, |call| {
                begun.push(call);
                ready(())
            });
            assert_eq!(begun.len(), expected);
        }
        assert!(begun.is_sorted() && begin.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_panics_ends_alone() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        let (say, said) = tokio::sync::oneshot::channel();
        begin.add(async { panic!("on purpose") }.boxed());
        begin.add(async move { say.send(()).unwrap() }.boxed());
        begin_all(&mut begin, &tasks);
        assert_eq!(said.await, Ok(()));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_call_that_was_begun_here_goes_on_where_it_was() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        let (say, said) = tokio::sync::oneshot::channel::<&str>();
        let (answer, answered) = tokio::sync::oneshot::channel();
        begin.add(async move {
            let heard = said.await;
            let _ = answer.send(heard);
        });
        begin_all(&mut begin, &tasks);
        say.send("go on").unwrap();
        assert_eq!(answered.await.unwrap(), Ok("go on"));
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn calls_that_keep_the_processor_have_tasks_until_they_do_not() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        let mut own = Vec::new();
        for keeps in [PATIENCE * 40, Duration::ZERO] {
            for _ in 0..100 {
                let before = tasks.len();
                begin.add(keeping(keeps));
                begin_all(&mut begin, &tasks);
                own.push(tasks.len() > before);
                while !tasks.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
        }
        assert!(!own[0], "nothing is known of them yet");
        assert!(own[1..100].iter().all(|own| *own));
        assert!(!own[199], "they are short by now");
    }

    #[tokio::test]
    async fn a_task_that_has_worked_for_long_begins_nothing_more() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        let mut begun = 0;
        let mut looks = 0;
        while begun == looks {
            begin.add(());
            begin.half(&tasks, |()| {
                begun += 1;
                ready(())
            });
            looks += 1;
            assert!(looks < 10_000);
        }
        assert!(!begin.is_empty());
        tokio::task::yield_now().await;
        begin.half(&tasks, |()| ready(()));
        assert!(begin.is_empty());
    }
}
