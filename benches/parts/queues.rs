//! What is between threads and in tables.

use std::sync::Arc;
use std::thread;

use capnp_threads::testing::parts::{Queue, Table};

use crate::meter::{Part, Run};

/// How many operations are measured at once.
const BATCH: u32 = 64;

pub(crate) const PARTS: &[Part] = &[
    Part::new("an entry of 10 replaced", || table(10)).operations(BATCH),
    Part::new("an entry of 100,000 replaced", || table(100_000)).operations(BATCH),
    Part::new("a stage's queue, on one thread", one_thread).operations(BATCH),
    Part::new("a stage's queue, to a thread and back", there_and_back).uncounted(),
];

fn table(entries: u32) -> Run {
    /// From one entry to the next: neighbours stand in one page.
    const STRIDE: u32 = 7919;
    let mut table = Table::new(entries);
    let mut id = 0;
    Box::new(move |meter| {
        meter.measure(|| {
            for _ in 0..BATCH {
                id = (id + STRIDE) % entries;
                assert!(table.replace(id));
            }
        })
    })
}

fn one_thread() -> Run {
    let queue = Queue::new();
    Box::new(move |meter| {
        meter.measure(|| {
            for item in 0..u64::from(BATCH) {
                assert!(queue.push(item) && queue.take() == Some(item));
            }
        })
    })
}

/// Another thread hands back what it is given. It ends with the queues.
fn there_and_back() -> Run {
    let there = Ended(Arc::new(Queue::new()));
    let back = Arc::new(Queue::new());
    let (from, to) = (there.0.clone(), back.clone());
    thread::spawn(move || while from.wait().is_some_and(|item| to.push(item)) {});
    Box::new(move |meter| {
        meter.measure(|| {
            assert!(there.0.push(1) && back.wait() == Some(1));
        })
    })
}

/// A queue that is closed when it is not used any more.
struct Ended(Arc<Queue>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.close();
    }
}
