//! What is told when a promise is resolved.

use std::fmt;

use im::Vector;

use super::client::Client;
use super::port::{Generation, Notice, Port};
use crate::id::ExportId;
use crate::promise::Fulfiller;
use crate::sync::{Arc, Mutex, Rank, Weak};

/// Told when a promise is resolved further. Can be cloned with a table; tells once.
#[derive(Clone)]
pub(crate) struct Watcher(Arc<Watching>);

enum Watching {
    /// The connection that exported the promise.
    Export(Weak<dyn Port>, ExportId, Generation),
    /// A thread, or whatever else waits for a promise.
    Waiter(Mutex<Option<Fulfiller<Client>>>),
}

impl Watcher {
    pub(crate) fn export(port: Weak<dyn Port>, id: ExportId, generation: Generation) -> Self {
        Watcher(Arc::new(Watching::Export(port, id, generation)))
    }

    pub(crate) fn waiter(fulfiller: Fulfiller<Client>) -> Self {
        Watcher(Arc::new(Watching::Waiter(Mutex::new(Rank::Queue, Some(fulfiller)))))
    }

    /// Whether what is to be told can still be of use: the table of exports has a clone of the watcher as long as the
    /// export is there, and a thread that waits has the promise that the watcher fulfills.
    fn is_live(&self) -> bool {
        match &*self.0 {
            Watching::Export(..) => Arc::strong_count(&self.0) > 1,
            Watching::Waiter(fulfiller) => fulfiller.lock().as_ref().is_some_and(Fulfiller::is_awaited),
        }
    }

    /// The promise has become `client`. Not to be called under a lock.
    pub(crate) fn resolved(&self, client: &Client) {
        match &*self.0 {
            Watching::Export(port, id, generation) => {
                if let Some(port) = port.upgrade() {
                    port.post(Notice::ExportResolved(*id, *generation));
                }
            }
            Watching::Waiter(fulfiller) => {
                let fulfiller = fulfiller.lock().take();
                if let Some(fulfiller) = fulfiller {
                    fulfiller.fulfill(client.clone());
                }
            }
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Watching::Export(_, id, _) => write!(f, "Watcher(export {id})"),
            Watching::Waiter(_) => f.write_str("Watcher(waiter)"),
        }
    }
}

/// All that watch a promise.
///
/// When the promise becomes another pending one, they are told nothing, and all watch that one from then on: a peer can
/// make each of many watched promises the next one, and to tell each watcher each time would take quadratic time.
///
/// Watchers that are of no use any more are dropped when there are twice as many as were left the last time.
#[derive(Clone)]
pub(crate) struct Watchers {
    all: Vector<Watcher>,
    clean_at: usize,
}

/// So few watchers are kept, of use or not.
const FEW: usize = 8;

impl Default for Watchers {
    fn default() -> Self {
        Watchers { all: Vector::new(), clean_at: FEW }
    }
}

impl Watchers {
    pub(crate) fn push(&mut self, watcher: Watcher) {
        if self.all.len() >= self.clean_at {
            self.all.retain(Watcher::is_live);
            self.clean_at = FEW.max(2 * self.all.len());
        }
        self.all.push_back(watcher);
    }

    pub(crate) fn append(&mut self, others: Watchers) {
        self.all.append(others.all);
        self.clean_at = self.clean_at.max(others.clean_at);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The promise has become `client`. Not to be called under a lock.
    pub(crate) fn resolved(self, client: &Client) {
        self.all.into_iter().for_each(|watcher| watcher.resolved(client));
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watchers({})", self.all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Kind;
    use super::super::promised::PromiseCell;
    use super::super::testing::Posts;
    use super::*;
    use crate::promise::promise;

    fn export(posts: &Arc<Posts>, id: u32) -> Watcher {
        let port: Arc<dyn Port> = posts.clone();
        Watcher::export(Arc::downgrade(&port), ExportId(id), 0)
    }

    /// Each promise is watched and becomes the one before it or behind it; what is told is counted.
    #[test]
    fn watchers_of_promises_that_become_each_other_are_told_once() {
        const COUNT: usize = 2000;
        for last_first in [false, true] {
            let posts = Arc::new(Posts::default());
            let cells: Vec<_> = (0..COUNT).map(|_| PromiseCell::new(None)).collect();
            let watchers: Vec<_> = (0..COUNT as u32).map(|id| export(&posts, id)).collect();
            cells.iter().zip(&watchers).for_each(|(cell, watcher)| cell.watch(watcher.clone()));
            let end = if last_first { 0 } else { COUNT - 1 };
            for n in 0..COUNT - 1 {
                let (from, to) = if last_first { (COUNT - 1 - n, COUNT - 2 - n) } else { (n, n + 1) };
                cells[from].resolve(Client(Kind::Promise(cells[to].clone())));
            }
            assert_eq!(posts.count(), 0, "all are promises still");
            cells[end].resolve(Client::null());
            assert_eq!(posts.count(), COUNT);
        }
    }

    #[test]
    fn watchers_that_are_of_no_use_are_dropped() {
        let (posts, mut watchers) = (Arc::new(Posts::default()), Watchers::default());
        let (kept, waits) = (export(&posts, 1), promise());
        watchers.push(kept.clone());
        watchers.push(Watcher::waiter(waits.1));
        for id in 0..10_000 {
            watchers.push(export(&posts, id));
            watchers.push(Watcher::waiter(promise().1));
            assert!(watchers.all.len() <= 2 * FEW);
        }
        watchers.resolved(&Client::null());
        assert!(waits.0.is_ready());
        assert!(posts.count() >= 1);
    }
}
