//! What is told when a promise is resolved.

use std::fmt;
use std::mem;

use im::Vector;

use super::client::Client;
use super::port::{ConnectionOps, Generation, TableEvent};
use crate::id::ExportId;
use crate::promise::Fulfiller;
use crate::sync::{Arc, Mutex, Rank, Weak};

/// Told when a promise is resolved further. Can be cloned with a table; tells once.
#[derive(Clone)]
pub(crate) struct Watcher(Arc<Watching>);

enum Watching {
    /// The connection that exported the promise.
    Export(Weak<dyn ConnectionOps>, ExportId, Generation),
    /// A thread, or whatever else waits for a promise.
    Waiter(Mutex<Option<Fulfiller<Client>>>),
}

impl Watcher {
    pub(crate) fn export(port: Weak<dyn ConnectionOps>, id: ExportId, generation: Generation) -> Self {
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
                    port.post(TableEvent::ExportResolved(*id, *generation));
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

/// Watchers that are of no use any more. With one of a thread that has given up waiting goes what that thread was to be
/// woken with, which may be foreign.
pub(crate) struct Useless(Vector<Watcher>);

impl Useless {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// So few watchers are kept, of use or not.
const FEW: usize = 8;

impl Default for Watchers {
    fn default() -> Self {
        Watchers { all: Vector::new(), clean_at: FEW }
    }
}

impl Watchers {
    /// Adds one. Gives those that are of no use any more, to be dropped outside of any lock.
    #[must_use]
    pub(crate) fn push(&mut self, watcher: Watcher) -> Useless {
        let useless = self.clean();
        self.all.push_back(watcher);
        useless
    }

    /// Adds others. Gives those that are of no use any more, to be dropped outside of any lock: that may be all.
    #[must_use]
    pub(crate) fn append(&mut self, others: Watchers) -> Useless {
        self.all.append(others.all);
        self.clean_at = self.clean_at.max(others.clean_at);
        self.clean()
    }

    /// Takes out those that are of no use any more, if there are so many that it is time to look.
    fn clean(&mut self) -> Useless {
        if self.all.len() < self.clean_at {
            return Useless(Vector::new());
        }
        let (live, useless) = mem::take(&mut self.all).into_iter().partition(Watcher::is_live);
        self.all = live;
        self.clean_at = FEW.max(2 * self.all.len());
        Useless(useless)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
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
    use crate::cap::Capability;
    use crate::promise::promise;

    fn export(posts: &Arc<Posts>, id: u32) -> Watcher {
        let port: Arc<dyn ConnectionOps> = posts.clone();
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
        drop(watchers.push(kept.clone()));
        drop(watchers.push(Watcher::waiter(waits.1)));
        for id in 0..10_000 {
            drop(watchers.push(export(&posts, id)));
            drop(watchers.push(Watcher::waiter(promise().1)));
            assert!(watchers.all.len() <= 2 * FEW);
        }
        watchers.resolved(&Client::null());
        assert!(waits.0.is_ready());
        assert!(posts.count() >= 1);
    }

    /// One promise after the other is exported, becomes the same pending one, and is released.
    #[test]
    fn watchers_of_promises_that_have_become_one_are_dropped_when_of_no_use() {
        let posts = Arc::new(Posts::default());
        let last = PromiseCell::new(None);
        let kept = export(&posts, 0);
        last.watch(kept.clone());
        for id in 1..10_000 {
            let cell = PromiseCell::new(None);
            let watcher = export(&posts, id);
            cell.watch(watcher.clone());
            cell.resolve(Client(Kind::Promise(last.clone())));
            drop(watcher);
            assert!(last.watchers() <= 2 * FEW, "{}", last.watchers());
        }
        last.resolve(Client::null());
        assert!(posts.count() >= 1, "the one that was kept was told");
    }

    /// One pending promise is exported again and again, and released each time; and waited for by what gives up.
    #[test]
    fn a_pending_promise_that_is_exported_again_and_again_keeps_no_watchers() {
        let posts = Arc::new(Posts::default());
        let cell = PromiseCell::new(None);
        for id in 0..100_000 {
            cell.watch(export(&posts, id));
            drop(Client(Kind::Promise(cell.clone())).next_resolution());
        }
        assert!(cell.watchers() <= 2 * FEW, "{}", cell.watchers());
    }
}
