//! The queues of an in-memory bus: what waits for whom, and what became of it. No waiting happens here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::{Event, PublishError, faults::Dice};

#[derive(Debug)]
pub(super) struct State {
    /// By consumer. Sorted, so that the dice fall in the same order for the same seed.
    queues: BTreeMap<String, Queue>,
    dice: Dice,
    last_id: u64,
}

/// Names a queue, and tells it from an earlier one of the same consumer.
#[derive(Clone, Debug)]
pub(super) struct QueueRef {
    consumer: String,
    id: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    id: u64,
    kinds: BTreeSet<String>,
    subscribers: usize,
    ready: VecDeque<Copy>,
    /// By when they are due; the number keeps those of one instant apart.
    later: BTreeMap<(Instant, u64), Copy>,
    last_later: u64,
    messages: HashMap<Uuid, Message>,
    /// Copies that are not settled.
    in_flight: usize,
    changed: Arc<Notify>,
}

/// One delivery to be made.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) message_id: Uuid,
    pub(super) attempt: u32,
}

/// An event in a queue, from publishing until its last copy is settled.
#[derive(Debug)]
struct Message {
    event: Event,
    copies: u32,
    /// True after the first settlement. Dropped with the queue, which tells waiting publishers.
    settled: watch::Sender<bool>,
}

/// What is known about a publish at once.
pub(super) enum Fate {
    Known(Result<(), PublishError>),
    Waiting {
        settled: Vec<watch::Receiver<bool>>,
        confirm_lost: bool,
    },
}

impl State {
    pub(super) fn new(dice: Dice) -> State {
        State {
            queues: BTreeMap::new(),
            dice,
            last_id: 0,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.queues.values().map(|queue| queue.in_flight).sum()
    }

    pub(super) fn acknowledgement_lost(&mut self) -> bool {
        self.dice.lose()
    }

    /// Joins the queue of a consumer, or makes it.
    pub(super) fn join(&mut self, consumer: String, kinds: Vec<String>) -> (QueueRef, Arc<Notify>) {
        self.last_id += 1;
        let id = self.last_id;
        let queue = self
            .queues
            .entry(consumer.clone())
            .or_insert_with(|| Queue::new(id));
        queue.kinds.extend(kinds);
        queue.subscribers += 1;
        let joined = QueueRef {
            consumer,
            id: queue.id,
        };
        (joined, queue.changed.clone())
    }

    /// Leaves a queue. With its last subscriber it goes, and publishers that wait for it learn so.
    pub(super) fn leave(&mut self, queue: &QueueRef) {
        let Some(found) = self.queue(queue) else {
            return;
        };
        found.subscribers -= 1;
        if found.subscribers == 0 {
            self.queues.remove(&queue.consumer);
        }
    }

    /// The queue, unless it is gone.
    pub(super) fn queue(&mut self, queue: &QueueRef) -> Option<&mut Queue> {
        let found = self.queues.get_mut(&queue.consumer)?;
        (found.id == queue.id).then_some(found)
    }

    pub(super) fn put(&mut self, event: &Event, queue_max: usize) -> Fate {
        if self.dice.lose() {
            return Fate::Known(Err(PublishError::Unconfirmed("the event was lost".into())));
        }
        let takers = self
            .queues
            .values_mut()
            .filter(|queue| queue.kinds.contains(&event.kind));
        let mut settled = Vec::new();
        for queue in takers {
            match queue.put(event, queue_max, &mut self.dice) {
                Ok(receiver) => settled.push(receiver),
                Err(error) => return Fate::Known(Err(error)),
            }
        }
        if settled.is_empty() && event.mandatory {
            return Fate::Known(Err(PublishError::Unroutable));
        }
        Fate::Waiting {
            settled,
            confirm_lost: self.dice.lose(),
        }
    }
}

impl Queue {
    fn new(id: u64) -> Queue {
        Queue {
            id,
            kinds: BTreeSet::new(),
            subscribers: 0,
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            last_later: 0,
            messages: HashMap::new(),
            in_flight: 0,
            changed: Arc::new(Notify::new()),
        }
    }

    fn put(
        &mut self,
        event: &Event,
        queue_max: usize,
        dice: &mut Dice,
    ) -> Result<watch::Receiver<bool>, PublishError> {
        if let Some(message) = self.messages.get(&event.message_id) {
            return Ok(message.settled.subscribe());
        }
        if self.messages.len() >= queue_max {
            return Err(PublishError::Refused(format!(
                "the queue holds {queue_max} events"
            )));
        }
        let copies = dice.copies();
        let (settled, receiver) = watch::channel(false);
        self.messages.insert(
            event.message_id,
            Message {
                event: event.clone(),
                copies,
                settled,
            },
        );
        self.in_flight += copies as usize;
        for _ in 0..copies {
            let copy = Copy {
                message_id: event.message_id,
                attempt: 1,
            };
            match dice.delay() {
                Some(delay) => self.put_later(copy, delay),
                None => self.ready.insert(dice.position(self.ready.len()), copy),
            }
        }
        self.changed.notify_waiters();
        Ok(receiver)
    }

    pub(super) fn put_later(&mut self, copy: Copy, delay: Duration) {
        self.last_later += 1;
        self.later
            .insert((Instant::now() + delay, self.last_later), copy);
        self.changed.notify_waiters();
    }

    /// Puts back what was delivered and not settled; it is the next one again.
    pub(super) fn put_back(&mut self, copy: Copy) {
        self.ready.push_front(copy);
        self.changed.notify_waiters();
    }

    /// The next copy that is due, else when to look again.
    pub(super) fn take(&mut self) -> Result<(Event, Copy), Option<Instant>> {
        let now = Instant::now();
        while let Some(entry) = self
            .later
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            self.ready.push_back(entry.remove());
        }
        let Some(copy) = self.ready.pop_front() else {
            return Err(self.later.keys().next().map(|(due, _)| *due));
        };
        let message = self
            .messages
            .get(&copy.message_id)
            .expect("a copy keeps its message");
        Ok((message.event.clone(), copy))
    }

    /// Forgets a copy for good. The first one settles the event for its publisher.
    pub(super) fn settle(&mut self, message_id: Uuid) {
        let message = self
            .messages
            .get_mut(&message_id)
            .expect("a copy keeps its message");
        message.settled.send_replace(true);
        message.copies -= 1;
        self.in_flight -= 1;
        if message.copies == 0 {
            self.messages.remove(&message_id);
        }
    }
}
