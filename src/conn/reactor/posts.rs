//! What rests, and what is to be driven.

use std::collections::{HashMap, VecDeque};
use std::mem;

use super::{Key, Told};
use crate::sync::{Arc, Condvar};

/// All that was left with the reactor.
pub(super) struct Posts<S> {
    posts: HashMap<Key, Post<S>>,
    next: Key,
    /// Those that have input, in the order in which it came.
    ready: VecDeque<Key>,
}

struct Post<S> {
    place: Place<S>,
    /// Its end has been told of.
    ended: bool,
    /// Where its own thread waits.
    own: Arc<Condvar>,
}

/// See Note [One waits for all].
enum Place<S> {
    Resting(S),
    Ready(S),
    Driven {
        /// More input was told of meanwhile.
        again: bool,
    },
    /// To its own thread.
    Back(S),
}

const DRIVEN: &str = "what is driven has its post";

impl<S> Posts<S> {
    pub(super) fn new() -> Self {
        Posts { posts: HashMap::new(), next: 0, ready: VecDeque::new() }
    }

    /// A post for what its own thread, which waits at `own` later, has still got.
    pub(super) fn make(&mut self, own: &Arc<Condvar>) -> Key {
        let key = self.next;
        self.next += 1;
        self.posts
            .insert(key, Post { place: Place::Driven { again: false }, ended: false, own: own.clone() });
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.posts.remove(&key);
    }

    /// Whether something has input.
    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What has had input for longest, to be driven, and whether its end has been told of.
    pub(super) fn take(&mut self) -> Option<(Key, S, bool)> {
        let key = self.ready.pop_front()?;
        let post = self.posts.get_mut(&key).expect("what is ready has its post");
        match mem::replace(&mut post.place, Place::Driven { again: false }) {
            Place::Ready(stage) => Some((key, stage, post.ended)),
            _ => unreachable!("it is in the queue once, while it is ready"),
        }
    }

    /// Whether more input was told of for what is driven.
    pub(super) fn has_more(&self, key: Key) -> bool {
        matches!(self.posts.get(&key).expect(DRIVEN).place, Place::Driven { again: true })
    }

    /// Puts what was driven back to rest, unless there is more input for it: `again`, or as was told of meanwhile.
    pub(super) fn put(&mut self, key: Key, stage: S, again: bool) {
        let again = again || self.has_more(key);
        let post = self.posts.get_mut(&key).expect(DRIVEN);
        post.place = if again { Place::Ready(stage) } else { Place::Resting(stage) };
        if again {
            self.ready.push_back(key);
        }
    }

    /// Gives what was driven back to its own thread.
    pub(super) fn give_back(&mut self, key: Key, stage: S) {
        self.posts.get_mut(&key).expect(DRIVEN).give_back(stage);
    }

    /// What was given back to this thread, which has left it here.
    pub(super) fn claim(&mut self, key: Key) -> Option<S> {
        let is_back = matches!(self.posts.get(&key)?.place, Place::Back(_));
        match is_back.then(|| self.posts.remove(&key))?? {
            Post { place: Place::Back(stage), .. } => Some(stage),
            _ => unreachable!("it is there"),
        }
    }

    /// There is input.
    pub(super) fn found(&mut self, told: Told) {
        // What was told of just before it was removed is gone.
        let Some(post) = self.posts.get_mut(&told.key) else { return };
        post.ended |= told.ended;
        match mem::replace(&mut post.place, Place::Driven { again: true }) {
            Place::Resting(stage) => {
                post.place = Place::Ready(stage);
                self.ready.push_back(told.key);
            }
            Place::Driven { .. } => {}
            place @ (Place::Ready(_) | Place::Back(_)) => post.place = place,
        }
    }

    /// How many rest.
    #[cfg(all(test, not(loom)))]
    pub(super) fn resting(&self) -> usize {
        self.posts.values().filter(|post| matches!(post.place, Place::Resting(_))).count()
    }

    /// Gives back all that is not driven just now.
    pub(super) fn give_all_back(&mut self) {
        self.ready.clear();
        for post in self.posts.values_mut() {
            match mem::replace(&mut post.place, Place::Driven { again: false }) {
                Place::Resting(stage) | Place::Ready(stage) | Place::Back(stage) => post.give_back(stage),
                driven @ Place::Driven { .. } => post.place = driven,
            }
        }
    }
}

impl<S> Post<S> {
    fn give_back(&mut self, stage: S) {
        self.place = Place::Back(stage);
        self.own.notify_one();
    }
}
