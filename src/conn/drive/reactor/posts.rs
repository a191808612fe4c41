//! What rests, and what is to be driven.

use std::collections::VecDeque;
use std::mem;

use super::{Key, Told};
use crate::sync::{Arc, Condvar};

/// All that was left with the reactor.
pub(super) struct Posts<S> {
    posts: Vec<Option<Post<S>>>,
    free: Vec<usize>,
    /// How many there have been.
    made: u32,
    /// Those that have input, in the order in which it came.
    ready: VecDeque<Key>,
}

struct Post<S> {
    /// Another one has had the same place before.
    key: Key,
    stands: Stands<S>,
    /// Its end has been told of.
    ended: bool,
    /// Where its own thread waits.
    own: Arc<Condvar>,
}

/// See Note [One waits for all].
enum Stands<S> {
    Resting(S),
    Ready(S),
    Driven {
        /// More input was told of meanwhile.
        again: bool,
    },
    /// To its own thread.
    Back(S),
}

/// The place of what a key names. What else is in the key tells it from those which had the place before.
fn place(key: Key) -> usize {
    key as u32 as usize
}

impl<S> Posts<S> {
    pub(super) fn new() -> Self {
        Posts { posts: Vec::new(), free: Vec::new(), made: 0, ready: VecDeque::new() }
    }

    /// A post for what its own thread, which waits at `own` later, has still got.
    pub(super) fn make(&mut self, own: &Arc<Condvar>) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.posts.push(None);
            self.posts.len() - 1
        });
        self.made = self.made.wrapping_add(1);
        let key = Key::from(self.made) << 32 | place as Key;
        self.posts[place] =
            Some(Post { key, stands: Stands::Driven { again: false }, ended: false, own: own.clone() });
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.posts[place(key)] = None;
        self.free.push(place(key));
    }

    fn get(&mut self, key: Key) -> Option<&mut Post<S>> {
        self.posts.get_mut(place(key))?.as_mut().filter(|post| post.key == key)
    }

    fn at(&mut self, key: Key) -> &mut Post<S> {
        self.get(key).expect("what is driven, or ready, has its post")
    }

    /// Whether something has input.
    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many have input.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What has had input for longest, to be driven, and whether its end has been told of.
    pub(super) fn take(&mut self) -> Option<(Key, S, bool)> {
        let key = self.ready.pop_front()?;
        let post = self.at(key);
        match mem::replace(&mut post.stands, Stands::Driven { again: false }) {
            Stands::Ready(stage) => Some((key, stage, post.ended)),
            _ => unreachable!("it is in the queue once, while it is ready"),
        }
    }

    /// Whether more input was told of for what is driven.
    pub(super) fn has_more(&mut self, key: Key) -> bool {
        matches!(self.at(key).stands, Stands::Driven { again: true })
    }

    /// Puts what was driven back to rest, unless there is more input for it: `again`, or as was told of meanwhile.
    pub(super) fn put(&mut self, key: Key, stage: S, again: bool) {
        let post = self.at(key);
        if again || matches!(post.stands, Stands::Driven { again: true }) {
            post.stands = Stands::Ready(stage);
            self.ready.push_back(key);
        } else {
            post.stands = Stands::Resting(stage);
        }
    }

    /// Gives what was driven back to its own thread.
    pub(super) fn give_back(&mut self, key: Key, stage: S) {
        self.at(key).give_back(stage);
    }

    /// What was given back to this thread, which has left it here.
    pub(super) fn claim(&mut self, key: Key) -> Option<S> {
        let post = self.at(key);
        match mem::replace(&mut post.stands, Stands::Driven { again: false }) {
            Stands::Back(stage) => {
                self.remove(key);
                Some(stage)
            }
            stands => {
                post.stands = stands;
                None
            }
        }
    }

    /// There is input.
    pub(super) fn found(&mut self, told: Told) {
        // What was told of just before it was removed is gone.
        let Some(post) = self.get(told.key) else { return };
        post.ended |= told.ended;
        match mem::replace(&mut post.stands, Stands::Driven { again: true }) {
            Stands::Resting(stage) => {
                post.stands = Stands::Ready(stage);
                self.ready.push_back(told.key);
            }
            Stands::Driven { .. } => {}
            stands @ (Stands::Ready(_) | Stands::Back(_)) => post.stands = stands,
        }
    }

    /// How many rest.
    #[cfg(all(test, not(loom)))]
    pub(super) fn resting(&self) -> usize {
        self.posts.iter().flatten().filter(|post| matches!(post.stands, Stands::Resting(_))).count()
    }

    /// Gives back all that is not driven just now.
    pub(super) fn give_all_back(&mut self) {
        self.ready.clear();
        for post in self.posts.iter_mut().flatten() {
            match mem::replace(&mut post.stands, Stands::Driven { again: false }) {
                Stands::Resting(stage) | Stands::Ready(stage) | Stands::Back(stage) => post.give_back(stage),
                driven @ Stands::Driven { .. } => post.stands = driven,
            }
        }
    }
}

impl<S> Post<S> {
    fn give_back(&mut self, stage: S) {
        self.stands = Stands::Back(stage);
        self.own.notify_one();
    }
}
