//! Keeps a task from waking itself.
//!
//! An answer that is written to a connection wakes the task that moves the connection's bytes. Where that task writes
//! it itself, and looks at the connection next, it need not be woken; and for tokio a task that wakes itself wants to
//! yield, so that another processor is woken up to take it.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Relaxed},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Stands between a task and what it polls.
pub(super) struct Hush {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Default)]
struct Inner {
    task: AtomicWaker,
    hushed: AtomicBool,
}

impl Hush {
    pub(super) fn new() -> Self {
        let inner = Arc::<Inner>::default();
        Self {
            waker: inner.clone().into(),
            inner,
        }
    }

    /// Polls so that what wakes the task does so through this.
    pub(super) fn poll<T>(
        &self,
        cx: &Context<'_>,
        polled: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.inner.task.register(cx.waker());
        polled(&mut Context::from_waker(&self.waker))
    }

    /// Does something meanwhile which the task is not woken: it has to poll afterwards.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.inner.hushed.store(true, Relaxed);
        let done = work();
        self.inner.hushed.swap(false, AcqRel);
        done
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Not a mere load: what was done before a wake that is kept back is seen by the poll after `during`, because its
        // end has read what was written here.
        if !self.hushed.fetch_and(true, AcqRel) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future as _, poll_fn},
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures_util::task::waker;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl futures_util::task::ArcWake for Counts {
        fn wake_by_ref(counts: &Arc<Self>) {
            counts.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn only_what_happens_outside_wakes_the_task() {
        let (hush, counts, notify) = (Hush::new(), Arc::new(Counts::default()), Notify::new());
        let waker = waker(counts.clone());
        let cx = Context::from_waker(&waker);
        let mut first = pin!(notify.notified());
        assert!(hush.poll(&cx, |cx| first.as_mut().poll(cx)).is_pending());
        hush.during(|| notify.notify_one());
        assert_eq!(counts.0.load(SeqCst), 0);
        assert!(hush.poll(&cx, |cx| first.as_mut().poll(cx)).is_ready());
        let mut second = pin!(notify.notified());
        assert!(hush.poll(&cx, |cx| second.as_mut().poll(cx)).is_pending());
        notify.notify_one();
        assert_eq!(counts.0.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_task_is_woken_by_what_it_waits_for() {
        let (hush, notify) = (Hush::new(), Arc::new(Notify::new()));
        let mut notified = pin!(notify.notified());
        let waits = poll_fn(|cx| hush.poll(cx, |cx| notified.as_mut().poll(cx)));
        let says = async { notify.notify_one() };
        tokio::join!(waits, says);
    }
}
