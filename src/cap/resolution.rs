//! What promises were resolved to, and how a chain of them is followed.
//!
//! ```text
//! Note [Chains of promises]
//! =========================
//! A promise can be resolved to another promise, and so on: a peer can make a chain as long as it likes, in any order,
//! and have each promise of it looked at. So a chain is followed without recursion, whatever its length, and whoever
//! has followed a long one leaves a shortcut to its end in each promise on the way, as in a union-find structure: to
//! resolve n promises to each other, and to follow each, takes O(n log n) steps in all.
//!
//! - A shortcut leads to where the promise's own resolution leads, directly or by way of others. So the promise holds
//!   nothing by a shortcut that it does not hold by its resolution, and to replace a shortcut drops nothing for good.
//! - Two connections can close a circle at the same moment (one that is closed in one place is broken there). A circle
//!   is found by Brent's method: at each power of two of the steps it is noted where the walk is, and a walk that comes
//!   there again goes in a circle.
//! ```

use std::borrow::Cow;

use super::capability::Capability;
use super::client::{Client, Kind};
use crate::error::Exception;
use crate::sync::{Mutex, OnceLock, Rank};

/// What a promise was resolved to, once it is. See Note [Chains of promises].
pub(crate) struct ResolvedTo {
    to: OnceLock<Client>,
    shortcut: Mutex<Option<Client>>,
}

impl Default for ResolvedTo {
    fn default() -> Self {
        ResolvedTo { to: OnceLock::new(), shortcut: Mutex::new(Rank::Queue, None) }
    }
}

impl ResolvedTo {
    pub(crate) fn get(&self) -> Option<&Client> {
        self.to.get()
    }

    /// Resolves the promise. Given back if it is resolved already.
    pub(crate) fn set(&self, to: Client) -> Result<(), Client> {
        self.to.set(to)
    }

    /// Takes out what the promise was resolved to: it is about to be dropped.
    pub(crate) fn take(&mut self) -> Option<Client> {
        // Before the resolution goes, which leads there.
        drop(self.shortcut.lock().take());
        self.to.take()
    }
}

#[cfg(test)]
thread_local! {
    /// How many promises this thread has passed in long chains.
    pub(crate) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// So many resolved promises are followed without a shortcut.
const NEAR: usize = 8;

impl Client {
    /// What this client has been resolved to so far: itself if it is no promise, or is a pending one. A broken client
    /// if it leads in a circle.
    pub(crate) fn resolved(&self) -> Client {
        self.last().into_owned()
    }

    /// The same, without a copy if it is near.
    pub(super) fn last(&self) -> Cow<'_, Client> {
        let mut client = self;
        for _ in 0..NEAR {
            match client.next() {
                Some(next) => client = next,
                None => return Cow::Borrowed(client),
            }
        }
        Cow::Owned(client.follow())
    }

    fn resolution(&self) -> Option<&ResolvedTo> {
        match &self.0 {
            Kind::Promise(cell) => Some(&cell.resolved),
            Kind::RemotePromise(promise) => Some(&promise.resolved),
            _ => None,
        }
    }

    fn next(&self) -> Option<&Client> {
        self.resolution()?.get()
    }

    /// Follows a long chain, and shortens it.
    fn follow(&self) -> Client {
        let (mut passed, mut at, mut noted) = (Vec::new(), self.clone(), None);
        while let Some(next) = at.further() {
            #[cfg(test)]
            STEPS.with(|steps| steps.set(steps.get() + 1));
            passed.push(std::mem::replace(&mut at, next));
            if noted == Some(at.address()) {
                return Client::broken(circle());
            }
            if passed.len().is_power_of_two() {
                noted = Some(at.address());
            }
        }
        // The last of those leads to the end anyway.
        passed.pop();
        for promise in &passed {
            if let Some(resolution) = promise.resolution() {
                let before = resolution.shortcut.lock().replace(at.clone());
                drop(before);
            }
        }
        at
    }

    /// Where this client leads, as far as is known without following it.
    fn further(&self) -> Option<Client> {
        let resolution = self.resolution()?;
        let to = resolution.get()?;
        let shortcut = resolution.shortcut.lock().clone();
        Some(shortcut.unwrap_or_else(|| to.clone()))
    }
}

pub(super) fn circle() -> Exception {
    Exception::failed("a circle of promises that resolve to each other")
}

#[cfg(test)]
mod tests {
    use super::super::promised::PromiseCell;
    use super::*;
    use crate::sync::Arc;

    fn promises(count: usize) -> Vec<Arc<PromiseCell>> {
        (0..count).map(|_| PromiseCell::new(None)).collect()
    }

    fn client(promise: &Arc<PromiseCell>) -> Client {
        Client(Kind::Promise(promise.clone()))
    }

    /// Each promise is resolved to the next one as it is, in an order, and looked at each time; then all are followed.
    /// Gives the steps for each promise.
    fn steps(
        count: usize,
        order: impl Fn(usize, usize) -> usize,
        resolves_to_last: bool,
        end: &Client,
    ) -> f64 {
        STEPS.with(|steps| steps.set(0));
        let cells = promises(count + 1);
        for n in 0..count {
            let at = order(n, count);
            let next = client(&cells[at + 1]);
            let to = if resolves_to_last { next.resolved() } else { next };
            assert!(cells[at].resolved.set(to).is_ok());
            assert!(client(&cells[order(n / 2, count)]).is_promise());
        }
        assert!(cells[count].resolved.set(end.clone()).is_ok());
        assert!(cells.iter().all(|cell| client(cell).resolved() == *end), "the chain is no circle");
        STEPS.with(|steps| steps.get()) as f64 / count as f64
    }

    #[test]
    fn a_chain_of_promises_costs_near_linear_time_in_any_order() {
        let orders: [fn(usize, usize) -> usize; 4] = [
            |n, _| n,
            |n, all| all - 1 - n,
            |n, all| n * 7919 % all,
            |n, all| if n % 2 == 0 { n / 2 } else { all - 1 - n / 2 },
        ];
        for (name, order) in ["first first", "last first", "mixed", "from both ends"].iter().zip(orders) {
            for (resolves_to_last, end) in [
                (false, Client::broken(Exception::failed("the end"))),
                (true, Client::null()),
                (false, Client::null()),
            ] {
                let [few, many] = [1 << 10, 1 << 17].map(|count| steps(count, order, resolves_to_last, &end));
                assert!(many < 2.0 * few.max(8.0), "{name}: {few} and {many} steps for each promise");
            }
        }
    }

    #[test]
    fn a_circle_of_any_length_is_found() {
        for count in [1, 2, 7, 8, 9, 10, 100, 20_000] {
            for tail in [0, 5, 1000] {
                let cells = promises(count + tail);
                for n in 0..tail {
                    assert!(cells[count + n].resolved.set(client(&cells[count + n - 1])).is_ok());
                }
                for n in 0..count {
                    assert!(cells[n].resolved.set(client(&cells[(n + 1) % count])).is_ok());
                }
                let why = client(&cells[count + tail - 1]).broken_reason().unwrap();
                assert!(why.reason().contains("circle"), "{why}");
            }
        }
    }
}
