//! Begins the calls of a connection on the connection's own task: most calls of a service that is up to its load are
//! answered without a wait, and then a task of their own costs more than it gives. It is pushed to another processor,
//! which wakes up for it and meets this one at the connection's lock; and their answers leave one by one, each with a
//! system call of its own, where these leave together.
//!
//! Not all that came are begun before an answer leaves, but half of them, then half of the rest: the caller has
//! something to do while this side works. (One at a time is as fast with eight calls in flight and slower with 64; all
//! at once leaves either side idle in turn.)
//!
//! A call that waits goes on in a task of its own. One that does not wait and takes long would hold up those behind it:
//! where calls have taken longer than [`PATIENCE`] before they waited, they are given a task at once. hyper always does
//! that.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio_util::task::TaskTracker;

/// How long the calls before a call may have kept the processor, on the average, for it to be begun here: some times
/// what a task costs.
const PATIENCE: Duration = Duration::from_micros(50);
/// The weight of one call among those before it: a part of so many.
const WEIGHT: u32 = 8;

/// The calls of a connection that have come in and are not begun.
pub(super) struct Begin<T> {
    came: Vec<T>,
    /// How long calls keep the processor before they wait: an exponentially weighted mean. It sinks with each call of
    /// which it is not known, so that it will be.
    keeps: Duration,
}

impl<T> Begin<T> {
    pub(super) fn new() -> Self {
        Self {
            came: Vec::new(),
            keeps: Duration::ZERO,
        }
    }

    pub(super) fn add(&mut self, call: T) {
        self.came.push(call);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// Begins half of them, in the order in which they came. What waits goes on among `tasks`.
    pub(super) fn half<F>(&mut self, tasks: &TaskTracker, mut serve: impl FnMut(T) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let half = self.came.len().div_ceil(2);
        let mut now = Instant::now();
        for call in self.came.drain(..half) {
            let mut kept = Duration::ZERO;
            if self.keeps > PATIENCE {
                tasks.spawn(serve(call));
            } else {
                if let Some(waits) = begun(|| serve(call)) {
                    tasks.spawn(waits);
                }
                let before = std::mem::replace(&mut now, Instant::now());
                kept = now - before;
            }
            self.keeps = (self.keeps * (WEIGHT - 1) + kept) / WEIGHT;
        }
    }
}

/// Goes as far as it goes without a wait; nothing: to its end. A panic outside of the handler ends this call only, as it
/// does in a task.
fn begun<F: Future<Output = ()>>(serve: impl FnOnce() -> F) -> Option<Pin<Box<F>>> {
    let going = AssertUnwindSafe(|| {
        let mut call = Box::pin(serve());
        let over = call.as_mut().now_or_never();
        over.is_none().then_some(call)
    });
    catch_unwind(going).ok().flatten()
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
    async fn calls_that_keep_the_processor_have_tasks_but_for_one_in_some() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        for _ in 0..100 {
            begin.add(keeping(PATIENCE * 40));
        }
        begin_all(&mut begin, &tasks);
        let own = tasks.len();
        assert!((90..100).contains(&own), "{own}");
    }

    #[tokio::test]
    async fn calls_that_have_become_short_are_begun_here_again() {
        let (mut begin, tasks) = (Begin::new(), TaskTracker::new());
        begin.add(keeping(PATIENCE * 40).boxed());
        for _ in 0..100 {
            begin.add(ready(()).boxed());
        }
        begin_all(&mut begin, &tasks);
        let own = tasks.len();
        assert!((1..40).contains(&own), "{own}");
    }
}
